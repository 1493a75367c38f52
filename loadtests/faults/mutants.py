"""Does the fault run notice? `python -m loadtests.faults.mutants --seconds 20`.

Each mutant is the same run with one defect: in the ledger's scripts, or in a client of it. Every
one of them must be caught, and the run without any must pass. Prints one JSON object as its last
line and exits 1 if one was missed. The checker knows none of them.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from byline.posting import scripts
from loadtests.faults.__main__ import is_good, run
from loadtests.faults.actors.poster import NEW_KEY
from loadtests.faults.actors.stage import UNCONFIRMED, Part
from loadtests.faults.actors.worker import MORE, TOO_SOON, TWICE
from loadtests.faults.cast import prepare

HONEST = "none"
TURNS_MIN = 16  # also on a slow machine: then every kind of fault has struck somebody
SHOWN_BY_THE_JOURNAL = (
    "lost", "doubled", "drift", "gap", "unbalanced", "invented", "changed", "overdrawn",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Patch:
    """One text of one script, and what a mutant has in its place."""

    script: str
    text: str
    instead: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect."""

    name: str
    patches: tuple[Patch, ...] = ()
    defect: str = ""  # of a client


MARK = "call('HSET', MARKS, ARGV[1], seq .. ':' .. ARGV[2] .. ':' .. (flag or ''))"
# The ledger's guard and the bound of open accounts, so that a wrong settle gets through to it.
UNGUARDED = (
    Patch("prelude", "if closed and balances[1] ~= closed then", "if false then"),
    Patch("prelude", "funding = no_bound,", "funding = no_bound, ['open:'] = no_bound,"),
)
MUTANTS = (
    Mutant(HONEST),
    Mutant("no dedupe", (Patch("prelude", "  if mark then\n", "  if false then\n"),)),
    Mutant("no mark", (Patch("prelude", f"  {MARK}\n", ""),)),
    Mutant(
        "mark before write",
        (
            Patch("prelude", f"  {MARK}\n", ""),
            Patch(
                "prelude",
                "  if not journal_end then check_meta() end\n",
                "  if not journal_end then check_meta() end\n  redis.call('HSET', MARKS, ARGV[1], "
                "string.format('%d', journal_end + 1) .. ':' .. ARGV[2] .. ':')\n",
            ),
        ),
    ),
    Mutant("no balance check", (Patch("prelude", "if sum ~= 0 then", "if false then"),)),
    Mutant(
        "no overdraft check",
        (Patch("prelude", "if nano < 0 and is_negative(after) then", "if false then"),),
    ),
    Mutant("no digest compare", (Patch("prelude", "if digest == ARGV[2] then", "if true then"),)),
    Mutant("dropped leg", (Patch("prelude", "for i = 1, n do", "for i = 2, n do"),)),
    Mutant(
        "leg missing in the journal",
        (
            Patch(
                "prelude",
                "for i = 1, #legs, 2 do\n    n = n + 1",
                "for i = 3, #legs, 2 do\n    n = n + 1",
            ),
        ),
    ),
    Mutant(
        "lost job XADD",
        (
            Patch(
                "capture",
                "for i = first_job, first_leg - 1 do",
                "for i = first_job + 1, first_leg - 1 do",
            ),
        ),
    ),
    Mutant(
        "capture without hold",
        (
            Patch("capture", "if state ~= 'held' and state ~= 'expired' then", "if false then"),
            Patch(
                "capture", "if facts[2] ~= application or facts[3] ~= held then", "if false then"
            ),
            Patch("capture", "local late = state == 'expired'", "local late = state ~= 'held'"),
        ),
    ),
    Mutant(NEW_KEY, defect=NEW_KEY),
    Mutant(TWICE, UNGUARDED, TWICE),
    Mutant(MORE, UNGUARDED, MORE),
    Mutant(TOO_SOON, defect=TOO_SOON),
    Mutant(UNCONFIRMED, defect=UNCONFIRMED),
)


def patched_scripts(patches: tuple[Patch, ...], folder: Path) -> Path:
    """A copy of the ledger's scripts with every patch applied; each must find its text."""
    shutil.copytree(scripts.SCRIPTS, folder)
    for patch in patches:
        path = folder / f"{patch.script}.lua"
        text = path.read_text()
        if text.count(patch.text) != 1:
            raise SystemExit(f"{patch.script}.lua does not have once: {patch.text}")
        path.write_text(text.replace(patch.text, patch.instead))
    return folder


def try_out(mutant: Mutant, seed: int, seconds: float) -> dict[str, Any]:
    """The figures of one run with the defect."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        part = Part(folder, seed, defect=mutant.defect)
        if mutant.name != HONEST:
            part = replace(part, scripts=patched_scripts(mutant.patches, folder / "lua"))
        return uvloop.run(run(part, seconds, turns_min=TURNS_MIN))


def strongest(findings: list[str]) -> str:
    """The finding that says most: what the journal itself shows, before what an actor met."""
    shown = [finding for finding in findings if finding.startswith(SHOWN_BY_THE_JOURNAL)]
    return (shown or findings)[0]


def main() -> int:
    """Try every mutant, and say which ones were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one mutant's name")
    arguments = parser.parse_args()
    prepare()
    caught: dict[str, str] = {}
    missed: list[str] = []
    for mutant in MUTANTS:
        if arguments.only not in (None, mutant.name):
            continue
        figures = try_out(mutant, arguments.seed, arguments.seconds)
        if is_good(figures) is not (mutant.name == HONEST):
            missed.append(mutant.name)
        if not is_good(figures):
            finding = strongest(figures["findings"])
            caught[mutant.name] = f"caught in turn {figures['turns']} by {finding}"
        print(f"{mutant.name}: {caught.get(mutant.name, 'nothing found')}", file=sys.stderr)
    print(json.dumps({"mutants": caught, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
