"""A statement with very many lines: logged, proven, and verified by the verifier's own program."""

import asyncio
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from byline.archive.database import Archive
from byline.canonical import canonical_text
from byline.limits import PPB
from byline.notary.folder import LogFolder
from byline.notary.log_keys import log_keys
from byline.notary.notary import Notary
from byline.notary.reader import LogReader
from byline.notary.source import Source
from byline.notary.state import State
from byline.records import Share
from byline.records_json import attribution_fields
from byline.statements import frozen as store
from byline.statements.freezing import Freezer
from byline.statements.months import Month
from tests.byline.cases import ADAPTER, an_attribution, event_id
from tests.byline.journals import DAY_MS, FakeJournal
from tests.byline.months import export

ACCOUNT, MONTH, ORIGIN = "contrib:bench", Month(2026, 11), "bench.example/usd"
OTHERS, NANO = 7, 100
ENTRIES_AT_ONCE = 20_000
VERIFIER = Path(__file__).parents[2] / "src" / "byline" / "verification"


def a_month(lines: int) -> FakeJournal:
    """A journal in memory in which each settlement pays the account and seven others."""
    journal, rng = FakeJournal(), random.Random(1)
    pause_ms = (MONTH.end_ms - MONTH.start_ms) // (lines + 1)
    for number in range(lines):
        time_ms = MONTH.start_ms + number * pause_ms
        inference = event_id(time_ms, rng)
        names = ["bench", *(f"c{(number * OTHERS + k) % 10_000}" for k in range(OTHERS))]
        shares = tuple(Share(name, 0.125, PPB // len(names), NANO) for name in names)
        pool = NANO * len(names)
        attribution = replace(an_attribution(inference, pool=pool), shares=shares, scores={})
        legs = {f"open:{inference}": -pool} | {f"contrib:{name}": NANO for name in names}
        journal.append(
            f"{inference}/settle/0", "settle", legs, time_ms=time_ms, version=ADAPTER,
            manifest=canonical_text(attribution_fields(attribution)),
        )  # fmt: skip
    return journal


def measure(folder: Path, lines: int) -> dict[str, Any]:
    """Make the month, its log and the statement's proof; verify all of it and one line."""
    archive = Archive.open(f"sqlite:///{folder}/archive.sqlite")
    journal = a_month(lines)
    export(archive, journal)
    Freezer(archive).freeze(ACCOUNT, MONTH, now_ms=MONTH.end_ms + DAY_MS)
    openings = folder / "openings" / "usd"
    keys = log_keys(folder / "notary" / "usd", openings, ORIGIN)
    notary = Notary(
        Source(journal, archive, "usd"), State.open(openings, ORIGIN),
        LogFolder(folder / "log" / "usd"), keys,
    )  # fmt: skip
    asyncio.run(_notarise(notary))
    reader = LogReader.open(folder, archive)
    frozen = store.find(archive, "usd", ACCOUNT, MONTH)
    began = time.perf_counter()
    size = 0
    with (folder / "many.tlog-proofs").open("w") as file:
        for line in reader.statement_proof(ACCOUNT, str(MONTH), (frozen.from_seq, frozen.to_seq)):
            size += file.write(line)
    made = time.perf_counter() - began
    (folder / "many.json").write_text(store.text_of(archive, frozen))
    (folder / "one.tlog-proof").write_text(reader.line_proof(lines // 2, ACCOUNT))
    vkey = keys.newest.verifier.text()
    one = min(_verified(folder, vkey, "one.tlog-proof") for _ in range(3))
    many = _verified(folder, vkey, "many.tlog-proofs", "many.json")
    return {
        "statement_lines": lines,
        "statement_proof_bytes": size,
        "statement_proof_lines_per_second": round(lines / made),
        "line_proof_bytes": (folder / "one.tlog-proof").stat().st_size,
        "verify_one_line_seconds": round(one, 3),
        "verify_statement_seconds": round(many, 2),
    }


async def _notarise(notary: Notary) -> None:
    while await notary.once(entries_max=ENTRIES_AT_ONCE):
        pass


def _verified(folder: Path, vkey: str, *files: str) -> float:
    """Seconds of the whole program, with its start."""
    argv = [sys.executable, str(VERIFIER), *files, "--key", vkey]
    began = time.perf_counter()
    ran = subprocess.run(argv, cwd=folder, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if ran.returncode != 0:
        raise AssertionError(ran.stdout[-2_000:] + ran.stderr[-2_000:])
    return seconds
