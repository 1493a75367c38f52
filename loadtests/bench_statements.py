"""How long a month with many lines takes: frozen, and in each of its three forms.

    python -m loadtests.bench_statements [--lines 100000] [--archive-url sqlite:////tmp/a.sqlite]

Prints one JSON object: seconds and bytes of each step, and the most memory the process used.
"""

import argparse
import json
import random
import resource
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from byline.archive.database import Archive
from byline.archive.rows import Found, entry_from
from byline.archive.writing import write_page
from byline.canonical import canonical_text
from byline.statements import frozen as store
from byline.statements.csv_form import statement_csv
from byline.statements.freezing import Freezer
from byline.statements.months import Month
from byline.statements.pdf_form import statement_pdf

ACCOUNT, MONTH = "contrib:bench", Month(2026, 11)
PAGE = 1_000
Result = TypeVar("Result")


def fill(archive: Archive, lines: int) -> None:
    """A month in which every entry pays the account, and the next month's first entry."""
    rng = random.Random(1)
    pause_ms = (MONTH.end_ms - MONTH.start_ms) // lines
    for start in range(0, lines + 1, PAGE):
        page = [
            settled(rng, number + 1, MONTH.start_ms + number * pause_ms if number < lines
                    else MONTH.end_ms)
            for number in range(start, min(start + PAGE, lines + 1))
        ]  # fmt: skip
        with archive.writing() as connection:
            write_page(connection, "usd", page, lambda _: None)


def settled(rng: random.Random, seq: int, time_ms: int) -> Found:
    """One settled inference, as the journal has it."""
    inference = str(uuid.UUID(int=rng.getrandbits(128)))
    nano = rng.randrange(1, 100_000)
    text = canonical_text({
        "adapter_version": "healthcare@0123456789ab", "charge": "0", "inference": inference,
        "key": f"{inference}/settle/0", "kind": "settle",
        "legs": [[f"open:{inference}", str(-nano)], [ACCOUNT, str(nano)]],
        "manifest_sha256": None, "policy": "", "seq": seq, "time_ms": time_ms, "v": 1,
    })  # fmt: skip
    return Found(entry_from(seq, text), text, None)


def timed(do: Callable[[], Result]) -> tuple[Result, float]:
    """What `do` gives, and how many seconds it took."""
    began = time.perf_counter()
    result = do()
    return result, round(time.perf_counter() - began, 2)


def measured(archive: Archive, lines: int) -> dict[str, object]:
    """The figures."""
    fill(archive, lines)
    freezer = Freezer(archive)
    frozen, freeze_seconds = timed(lambda: freezer.freeze(ACCOUNT, MONTH, now_ms=MONTH.end_ms))
    text, read_seconds = timed(lambda: store.text_of(archive, frozen))
    table, csv_seconds = timed(lambda: statement_csv(text))
    pdf, pdf_seconds = timed(lambda: statement_pdf(text))
    return {
        "lines": lines,
        "json": {"freeze_seconds": freeze_seconds, "read_seconds": read_seconds,
                 "bytes": len(text.encode())},
        "csv": {"seconds": csv_seconds, "bytes": len(table)},
        "pdf": {"seconds": pdf_seconds, "bytes": len(pdf)},
        "memory_mib_max": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


@contextmanager
def opened(archive_url: str | None) -> Iterator[Archive]:
    """The archive at that address, or one that goes away afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive.open(archive_url or f"sqlite:///{folder}/archive.sqlite")
        try:
            yield archive
        finally:
            archive.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--archive-url", help="an empty database; without it, SQLite in a folder")
    arguments = parser.parse_args()
    with opened(arguments.archive_url) as archive:
        print(json.dumps(measured(archive, arguments.lines)))


if __name__ == "__main__":
    main()
