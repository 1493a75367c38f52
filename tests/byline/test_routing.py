"""The router: sure where its adapters' subjects are, silent elsewhere, small, fast, no pickle."""

import json
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from byline.artifacts import Artifact, ArtifactStore
from byline.datasets import DATASETS, build_dataset
from byline.errors import ArtifactError, InvalidInput, StartFailed
from byline.home import Home
from byline.records import AdapterVersion, Example, Release
from byline.registry import write_release
from byline.routing import Router, build_router, evaluation
from byline.routing.background import SUBJECTS, find_background, read_background, utterances
from byline.routing.evaluation import EvaluationTexts, evaluate_router, evaluation_texts, share
from byline.routing.fit import template_words, texts_of
from byline.routing.text import CHARACTERS_MAX, content_words
from byline.routing.vocabulary import read_vocabulary

QUESTIONS = Path(__file__).parent / "routing_questions.json"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("home") / "artifacts")


@pytest.fixture(scope="module")
def datasets(store: ArtifactStore) -> Mapping[str, Artifact]:
    return {name: build_dataset(store, name) for name in DATASETS}


@pytest.fixture(scope="module")
def built(store: ArtifactStore, datasets: Mapping[str, Artifact]) -> Artifact:
    return build_router(store, datasets)


@pytest.fixture(scope="module")
def router(built: Artifact) -> Router:
    return Router.load(built)


@pytest.fixture(scope="module")
def texts(store: ArtifactStore, datasets: Mapping[str, Artifact]) -> EvaluationTexts:
    references = {name: artifact.reference for name, artifact in datasets.items()}
    return evaluation_texts(store, references, QUESTIONS)


def test_a_text_on_a_subject_reaches_its_adapter(router: Router) -> None:
    route = router.route("Improper neutralization of input lets an attacker inject SQL commands.")
    assert route.adapter == "cybersecurity"
    assert route.confidence > 0.5
    assert route.runner_up in {"healthcare", "compliance"}


@pytest.mark.parametrize("text", ["", "1234 ...", "the and of", "Tell me a joke about penguins."])
def test_a_text_on_no_subject_is_the_base_models(router: Router, text: str) -> None:
    route = router.route(text)
    assert route.adapter is None
    assert route.confidence < router.arrays.floor
    assert route.runner_up in DATASETS


def test_completions_that_nobody_trained_on_reach_their_adapter(
    router: Router, texts: EvaluationTexts
) -> None:
    for adapter, completions in texts.completions.items():
        sample = completions[:300]
        right = sum(router.route(text).adapter == adapter for text in sample)
        assert right / len(sample) > 0.75, adapter  # without the base model's word vectors


def test_most_of_what_is_nobodys_subject_reaches_the_base_model(
    router: Router, texts: EvaluationTexts
) -> None:
    away = [router.route(text).adapter is None for text in texts.out_of_domain]
    assert len(away) >= 20
    assert sum(away) / len(away) >= 0.7


def test_probabilities_are_those_of_one_whole(router: Router) -> None:
    for text in ("", "a firewall rule", "seizures " * 3_000):
        assert router.probabilities(text).sum() == pytest.approx(1)


def test_only_the_start_of_a_long_text_is_read(router: Router) -> None:
    start = "abnormal morphology of the kidney " * 200
    assert len(start) > CHARACTERS_MAX
    assert router.route(start) == router.route(start + "poem " * 100_000)


def test_a_text_of_100_words_is_routed_in_less_than_a_millisecond(
    router: Router, texts: EvaluationTexts
) -> None:
    text = " ".join(" ".join(texts.completions["compliance"][:10]).split()[:100])
    taken = []
    for _ in range(300):
        begun = time.perf_counter()
        router.route(text)
        taken.append(time.perf_counter() - begun)
    assert sorted(taken)[len(taken) // 4] < 0.001  # the machine may be busy with other things


def test_two_builds_give_the_same_bytes(
    tmp_path: Path, datasets: Mapping[str, Artifact], built: Artifact
) -> None:
    reversed_order = {name: datasets[name] for name in reversed(list(datasets))}
    assert build_router(ArtifactStore(tmp_path), reversed_order).sha256 == built.sha256


def test_the_same_recipe_is_fitted_once(
    store: ArtifactStore, datasets: Mapping[str, Artifact], built: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("byline.routing.fit.fit_router", None)
    assert build_router(store, datasets) == built


def test_a_router_says_how_cross_validation_judged_it(built: Artifact) -> None:
    report = json.loads((built.path / "router.json").read_text())["cross_validated"]
    assert report["turned_away"]["general"] == pytest.approx(0.9, abs=0.01)
    assert set(report["right"]) == {"completion", "prompt", "stretch"}


def test_one_adapter_leaves_nothing_to_choose(
    store: ArtifactStore, datasets: Mapping[str, Artifact]
) -> None:
    with pytest.raises(InvalidInput, match="two adapters"):
        build_router(store, {"healthcare": datasets["healthcare"]})


def test_a_missing_background_package_is_named(
    store: ArtifactStore, datasets: Mapping[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byline.routing.background.PACKAGE", "no_such_package")
    with pytest.raises(StartFailed, match="no_such_package"):
        build_router(store, datasets)


def test_an_artifact_that_is_no_router_is_refused(datasets: Mapping[str, Artifact]) -> None:
    with pytest.raises(ArtifactError, match="is no router"):
        Router.load(datasets["healthcare"])


def test_a_pickle_in_a_router_is_refused(store: ArtifactStore, built: Artifact) -> None:
    with store.build("router", "odd", {}) as folder:
        (folder / "router.json").write_bytes((built.path / "router.json").read_bytes())
        np.savez(folder / "weights.npz", columns=np.array([{}], dtype=object))
    odd = store.find("router", {})
    assert odd is not None
    with pytest.raises(ArtifactError, match="is no router"):
        Router.load(odd)


# --- the base model's words -------------------------------------------------------------------


def write_model(folder: Path, words: Mapping[str, list[float]], dtype: str = "F32") -> Path:
    """A model folder with a tokenizer and an embedding table, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    table = np.array(list(words.values()), dtype="<f4")
    data = {
        "F32": table.tobytes(),
        "F16": table.astype("<f2").tobytes(),
        "BF16": (table.view("<u4") >> 16).astype("<u2").tobytes(),
    }[dtype]
    entry = {"dtype": dtype, "shape": list(table.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    other = json.dumps({"lm_head": entry}).encode()
    for name, head in (("model-1.safetensors", other), ("model-2.safetensors", header)):
        (folder / name).write_bytes(struct.pack("<Q", len(head)) + head + data)
    return folder


WORDS = {
    "Ġeyelid": [1.0, 0.0], "ĠEyelid": [1.0, 0.5], "▁poem": [-1.0, 0.0], "Ġthe": [9.0, 9.0],
    "Ġx": [9.0, 9.0], "lid": [9.0, 9.0], "Ġkidney": [0.5, -1.0],
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_whole_content_words_get_unit_vectors(tmp_path: Path, dtype: str) -> None:
    vocabulary = read_vocabulary(write_model(tmp_path, WORDS, dtype))
    assert vocabulary.words == ("eyelid", "kidney", "poem")
    assert np.linalg.norm(vocabulary.vectors, axis=1) == pytest.approx(1)
    eyelid, kidney, poem = vocabulary.vectors
    assert eyelid @ poem < kidney @ poem < 0


def test_a_unigram_tokenizer_is_read_too(tmp_path: Path) -> None:
    write_model(tmp_path, WORDS)
    pairs = [[word, -1.0] for word in WORDS]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": pairs}}))
    assert read_vocabulary(tmp_path).words == ("eyelid", "kidney", "poem")


@pytest.mark.parametrize("missing", ["tokenizer.json", "model-2.safetensors"])
def test_a_base_model_without_readable_words_gives_none(tmp_path: Path, missing: str) -> None:
    write_model(tmp_path, WORDS)
    (tmp_path / missing).unlink()
    assert read_vocabulary(tmp_path).words == ()


def test_what_is_learnt_of_one_word_reaches_the_words_beside_it(
    tmp_path: Path, datasets: Mapping[str, Artifact], router: Router
) -> None:
    """`zyzzyva` is in no dataset; it lies where the words of one of them lie."""
    store = ArtifactStore(tmp_path / "artifacts")
    medical = ["abnormal", "abnormality", "congenital", "syndrome", "muscle", "nerve", "zyzzyva"]
    other = ["attacker", "software", "control", "access", "organization", "love", "movie", "book"]
    rows = {f"Ġ{word}": [1.0, 0.1 * place] for place, word in enumerate(medical)}
    rows |= {f"Ġ{word}": [-1.0, 0.1 * place] for place, word in enumerate(other)}
    with store.build("base", "tiny", {}) as folder:
        write_model(folder, rows)
    base = store.find("base", {})
    taught = Router.load(build_router(store, datasets, base=base))
    healthcare = taught.arrays.adapters.index("healthcare")
    word = "zyzzyva"
    assert taught.probabilities(word)[healthcare] > router.probabilities(word)[healthcare] + 0.2


# --- what a router learns from ----------------------------------------------------------------


def example(number: int, prompt: str, completion: str) -> Example:
    return Example(str(number), "who", "l", "s", "2020-01-01", prompt, completion)


def test_a_template_does_not_teach() -> None:
    rows = [example(n, f"What is CWE-{n} (name{n})?", "c") for n in range(10)]
    shared = template_words(rows)
    assert shared == {"what", "is", "cwe"}
    assert ("subject", "3 name3") in texts_of(rows[3], shared)


def test_a_completion_teaches_by_stretches_as_short_as_questions() -> None:
    completion = " ".join(f"w{n}" for n in range(20))
    stretches = [
        text for kind, text in texts_of(example(1, "p", completion), frozenset())
        if kind == "stretch"
    ]  # fmt: skip
    assert [len(stretch.split()) for stretch in stretches] == [8, 8]
    assert texts_of(example(1, "p", "only three words"), frozenset())[-1][1] == "only three words"


def test_general_talk_is_read_without_what_specialists_answer() -> None:
    general = read_background(find_background())
    assert len(general) == len(set(general)) > 500
    assert all(len(content_words(text)) >= 2 for text in general)
    assert not {"health", "computers", "coding", "tech_support"} & set(SUBJECTS)


def test_a_conversation_file_is_read_line_by_line() -> None:
    document = (
        "categories:\n- food\nconversations:\n- - Do you cook\n    often?\n  - 'Yes'\n\n- Alone\n"
    )
    assert utterances(document) == ["Do you cook often?", "Yes", "Alone"]
    assert utterances("conversations:\n  loose\n") == []


def test_evaluation_questions_are_in_no_training_text(datasets: Mapping[str, Artifact]) -> None:
    asked = json.loads(QUESTIONS.read_text())
    near_misses = asked.pop("near_misses")
    asked |= {f"near {adapter}": questions for adapter, questions in near_misses.items()}
    assert set(near_misses) == set(DATASETS)
    assert all(len(questions) >= 20 for questions in asked.values())
    taught = {" ".join(content_words(text)) for text in read_background(find_background())}
    for questions in asked.values():
        assert not taught & {" ".join(content_words(question)) for question in questions}


# --- the evaluation ---------------------------------------------------------------------------


def test_held_out_completions_leave_the_training_rows_out(
    texts: EvaluationTexts, datasets: Mapping[str, Artifact]
) -> None:
    for name, artifact in datasets.items():
        trained = (artifact.path / "rows.jsonl").read_text()
        assert not any(json.dumps(text) in trained for text in texts.completions[name])


def test_a_share_stands_with_its_interval() -> None:
    assert share(9, 10) == {"share": 0.9, "of": 10, "low": 0.5958, "high": 0.9821}
    assert share(0, 0) == {"share": None, "of": 0}


def test_an_evaluation_says_what_it_measured(router: Router) -> None:
    asked = {"cybersecurity": ["An attacker overflows the buffer in memory."]}
    jokes = ["Tell me a joke about penguins."]
    report = evaluate_router(
        router, EvaluationTexts(asked, asked, jokes, {"compliance": jokes}), rounds=5
    )
    right = {"right": share(1, 1), "to_base": share(0, 1)}
    assert report["held_out_completions"] == report["questions"] == {"cybersecurity": right}
    assert report["out_of_domain_to_base"] == share(1, 1)
    assert report["near_misses_to_base"] == {"compliance": share(1, 1)}
    assert report["sent_to"] == {
        "questions": {"cybersecurity": {"cybersecurity": 1}},
        "near_misses": {"compliance": {"base": 1}},
    }


def test_the_command_measures_the_router_of_a_release(
    store: ArtifactStore, datasets: Mapping[str, Artifact], built: Artifact,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    home = Home(store.root.parent)
    adapters = tuple(
        AdapterVersion(name, f"{name}@0", "p", name, "base", artifact.reference, "i@0")
        for name, artifact in datasets.items()
    )
    write_release(home.release, Release("base", "base", 2048, adapters, built.reference))
    evaluation.main(["--home", str(home.root), "--questions", str(QUESTIONS)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    assert result["router"] == built.reference
    assert set(result["questions"]) == set(DATASETS)


@pytest.mark.parametrize(
    "text", ["", "   ", "...", "123", "你好", "asdf qwer", "🙂", "what is zzqx?"]
)
def test_a_text_of_which_no_word_is_known_goes_to_the_base_model(router: Router, text: str) -> None:
    assert router.route(text).adapter is None
