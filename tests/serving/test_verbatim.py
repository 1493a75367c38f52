"""Verbatim spans are those of their definition, found without trying all pieces of all rows.

A span stands in an answer and in a row, token for token; it begins and ends where words do in both;
it has three words or more; no longer such span holds it. The rarest come first. Its offsets cut
the same words out of the answer's text and out of the row's. It is never part of any pay.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from byline.errors import ArtifactError
from byline.limits import VERBATIM_ROWS_SHOWN, VERBATIM_WORDS_MIN
from serving import verbatim
from serving.token_texts import TokenTexts
from serving.verbatim import VerbatimIndex, write_verbatim

ROWS = (
    "The product writes to a buffer using an index that it never checks.",
    "Écoute: the façade writes to a buffer, 日本語 and all.",
    "A buffer using an index is read past its end by the product.",
)


def tokenizer_of(texts: Sequence[str]) -> TokenTexts:
    """A byte-level BPE tokenizer, the kind that cuts inside words and inside characters."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(list(texts), trainer)
    make: Any = PreTrainedTokenizerFast
    return TokenTexts(make(tokenizer_object=made))


TEXTS = tokenizer_of(ROWS)


def ids(text: str) -> list[int]:
    tokenizer: Any = TEXTS._tokenizer
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def index_of(folder: Path, rows: Sequence[Sequence[int]]) -> VerbatimIndex:
    write_verbatim(folder, rows)
    return VerbatimIndex(folder, [(f"row-{n}", f"who-{n % 2}") for n in range(len(rows))], TEXTS)


@pytest.fixture
def index(tmp_path: Path) -> VerbatimIndex:
    return index_of(tmp_path, [ids(row) for row in ROWS])


def cut(text: str, ends: tuple[int, int]) -> str:
    return text[ends[0] : ends[1]]


def test_offsets_cut_the_words_out_of_the_answer_and_out_of_each_row(index: VerbatimIndex) -> None:
    answer = "Perhaps it writes to a buffer using an index, 日本語 and all"
    spans = index.spans(ids(answer))
    assert spans
    for span in spans:
        said = cut(answer, span.characters)
        assert len(said.split()) >= VERBATIM_WORDS_MIN
        assert ids(answer)[slice(*span.tokens)]
        for row in span.rows:
            text = ROWS[int(row.id[-1])]
            assert cut(text, row.characters) == said
            assert ids(text)[slice(*row.tokens)] == ids(answer)[slice(*span.tokens)]
            assert row.contributor == f"who-{int(row.id[-1]) % 2}"


def test_the_longest_and_rarest_words_come_first(
    index: VerbatimIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbatim, "VERBATIM_DENSITY", 1.0)
    answer = "so 日本語 and all, but it writes to a buffer using an index now"
    spans = index.spans(ids(answer))
    found = {cut(answer, span.characters): span for span in spans}
    assert "writes to a buffer using an index" in found
    assert found["writes to a buffer using an index"].occurrences == 1
    rarities = [span.rarity_nats for span in spans]
    assert rarities == sorted(rarities, reverse=True)


def test_a_word_is_never_cut(index: VerbatimIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbatim, "VERBATIM_DENSITY", 1.0)
    answer = "it writes to a bufferbloat"
    (span,) = index.spans(ids(answer))
    assert cut(answer, span.characters) == "writes to a"


def test_a_word_of_a_row_is_never_cut_either(tmp_path: Path) -> None:
    row = ids("rewrites to a bufferbloat now")
    answer = "writes to a bufferbloat"
    (span,) = index_of(tmp_path, [row]).spans(ids(answer))
    assert cut(answer, span.characters) == "to a bufferbloat"
    assert index_of(tmp_path, [row]).spans(ids("who writes to a buffer")) == ()


def test_what_stands_in_no_row_is_not_shown(index: VerbatimIndex) -> None:
    assert index.spans(ids("Nothing of this was ever said by anyone.")) == ()
    assert index.spans(()) == ()
    assert index.spans([70_000, 4, 5]) == ()


def test_so_many_spans_are_shown_as_the_answer_has_tokens(index: VerbatimIndex) -> None:
    answer = ids("The product writes to a. buffer using an index, the product writes to. ") * 4
    spans = index.spans(answer)
    assert 1 < len(spans) <= math.ceil(0.05 * len(answer))


def test_a_span_of_many_rows_shows_the_first_of_them(tmp_path: Path) -> None:
    row = ids("the very same words in each")
    (span, *_) = index_of(tmp_path, [row] * 9).spans(row)
    assert span.occurrences == 9
    assert [each.id for each in span.rows] == [f"row-{n}" for n in range(VERBATIM_ROWS_SHOWN)]


def test_files_of_other_rows_are_refused(tmp_path: Path) -> None:
    write_verbatim(tmp_path, [ids(row) for row in ROWS])
    with pytest.raises(ArtifactError, match="of other rows"):
        VerbatimIndex(tmp_path, [("row", "who")], TEXTS)


words = st.lists(
    st.sampled_from(["a", "buffer", "an", "index", "bufferx", "xa", ",", "é", "日本"]), max_size=9
)
sentences = words.map(lambda chosen: " ".join(chosen).replace(" ,", ","))


@settings(max_examples=60, deadline=None)
@given(st.lists(sentences, min_size=1, max_size=4), sentences)
def test_the_spans_are_those_of_the_definition(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], answer: str
) -> None:
    """Every piece of the answer is tried in every row."""
    folder = tmp_path_factory.mktemp("index")
    tokens, told = [ids(row) for row in rows], ids(answer)
    if not any(tokens):
        return
    found = index_of(folder, tokens)._maximal([token + 1 for token in told])
    assert [(span.start, span.end) for span in found] == by_definition(told, tokens)


def by_definition(told: Sequence[int], rows: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    def breaks(tokens: Sequence[int], place: int) -> bool:
        inside = 0 < place < len(tokens)
        return not inside or TEXTS.breaks(tokens[place - 1], tokens[place])

    def stands(piece: Sequence[int]) -> bool:
        return any(
            list(row[at : at + len(piece)]) == list(piece)
            and breaks(row, at)
            and breaks(row, at + len(piece))
            for row in rows
            for at in range(len(row) - len(piece) + 1)
        )

    good = [
        (start, end)
        for start in range(len(told))
        for end in range(start + 1, len(told) + 1)
        if breaks(told, start)
        and breaks(told, end)
        and TEXTS.words(told[start:end]) >= VERBATIM_WORDS_MIN
        and stands(told[start:end])
    ]
    return [
        span
        for span in good
        if not any(other != span and other[0] <= span[0] and span[1] <= other[1] for other in good)
    ]


def test_wide_tokens_are_sorted_as_numbers(tmp_path: Path) -> None:
    rows = [[200_000, 7, 65_536, 9], [7, 65_536, 1]]
    write_verbatim(tmp_path, rows)
    stored = (tmp_path / verbatim.TOKENS).read_bytes()
    assert stored[0] == 4
    tokens = np.frombuffer(stored[1:], ">u4").tolist()
    suffixes = np.fromfile(tmp_path / verbatim.SUFFIXES, np.int32).tolist()
    assert suffixes == sorted(
        (place for place, token in enumerate(tokens) if token), key=lambda at: tokens[at:]
    )
