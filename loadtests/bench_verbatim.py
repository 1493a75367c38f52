"""Verbatim evidence over a million tokens: time to build, time an answer, bytes a token.

    python -m loadtests.bench_verbatim [--tokens 1000000] [--answers 200]

Rows are the three datasets' own texts (every usable row), and as many more, made of their words in
their frequencies, as it takes. Answers are 64 tokens: pieces of rows with other words between them,
and rows' beginnings; so each has something to find. One JSON object is the last line.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

from transformers import AutoTokenizer

from byline.datasets import SOURCES
from byline.datasets.packages import find_package
from byline.datasets.selection import usable
from byline.home import Home
from serving.token_texts import TokenTexts
from serving.verbatim import SUFFIXES, TOKENS, VerbatimIndex, write_verbatim

ANSWER_TOKENS = 64
PIECE_TOKENS = 12


def real_texts() -> list[str]:
    """Every usable completion of the three datasets."""
    return [
        contribution.example.completion
        for source in SOURCES.values()
        for contribution in usable(source.read(find_package(source.package)))
    ]


def rows_of(encoded: list[list[int]], tokens_min: int, chance: random.Random) -> list[list[int]]:
    """The real rows, and made-up ones of three of their pieces each, up to so many tokens."""
    rows = list(encoded)
    count = sum(map(len, rows))
    while count < tokens_min:
        pieces = [piece_of(chance.choice(encoded), chance) for _ in range(3)]
        rows.append([token for piece in pieces for token in piece])
        count += len(rows[-1])
    return rows


def piece_of(row: list[int], chance: random.Random) -> list[int]:
    """Some tokens in a row's middle."""
    start = chance.randrange(max(len(row) - PIECE_TOKENS, 1))
    return row[start : start + PIECE_TOKENS]


def answer_of(rows: list[list[int]], chance: random.Random) -> list[int]:
    """64 tokens: pieces of rows, one after the other."""
    told: list[int] = []
    while len(told) < ANSWER_TOKENS:
        told += piece_of(chance.choice(rows), chance)
    return told[:ANSWER_TOKENS]


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Measure verbatim evidence.")
    parser.add_argument("--home", type=Path, default=Path(".byline"), help="has a base model")
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--answers", type=int, default=200)
    arguments = parser.parse_args()
    (base,) = list((Home(arguments.home).artifacts / "base").glob("*@*"))[:1]
    tokenizer = AutoTokenizer.from_pretrained(base)
    chance = random.Random(5)
    encoded = [tokenizer(text, add_special_tokens=False).input_ids for text in real_texts()]
    rows = rows_of(encoded, arguments.tokens, chance)
    count = sum(map(len, rows))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        write_verbatim(folder, rows)
        built = time.perf_counter()
        named = [(f"row-{place}", "someone") for place in range(len(rows))]
        index = VerbatimIndex(folder, named, TokenTexts(tokenizer))
        loaded = time.perf_counter()
        sizes = sum((folder / file).stat().st_size for file in (TOKENS, SUFFIXES))
        times, spans = [], 0
        for _ in range(arguments.answers):
            answer = answer_of(rows, chance)
            start = time.perf_counter()
            spans += len(index.spans(answer))
            times.append(1_000 * (time.perf_counter() - start))
    result = {
        "rows": len(rows),
        "real_rows": len(encoded),
        "tokens": count,
        "bytes_per_token": round(sizes / count, 2),
        "build_seconds": round(built - began, 2),
        "load_seconds": round(loaded - built, 2),
        "answers": len(times),
        "spans_per_answer": round(spans / len(times), 1),
        "answer_ms_p50": round(statistics.median(times), 2),
        "answer_ms_p99": round(statistics.quantiles(times, n=100)[98], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
