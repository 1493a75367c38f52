"""What was asked for and what was promised, kept outside Redis; the whole of it in a file, too."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import orjson

from loadtests.faults.messages import Acknowledged, Refused, Spooled, Unknown
from loadtests.faults.operations import Expect, Flow, Operation, key_of

FUNDS = "InsufficientFunds"
AGAIN_MAX = 20


class Record:
    """Every operation by its key: the payload, and what the actors were told of it."""

    def __init__(self, path: Path) -> None:
        self.payloads: dict[str, Operation] = {}
        self.acknowledged: dict[str, int] = {}  # key -> seq
        self.spooled: set[str] = set()  # promised by the spool
        self.unknown: set[str] = set()  # and not answered since
        self.refused: dict[str, Refused] = {}  # the newest answer of each key
        self.fresh: list[str] = []  # acknowledged since the last check
        self.counts: Counter[str] = Counter()
        self.told_twice: dict[str, tuple[int, int]] = {}  # key -> two numbers of one operation
        self._file = path.open("ab")

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def issue(self, flows: Iterable[Flow]) -> None:
        """These are about to be asked for."""
        for flow in flows:
            for operation in flow.operations:
                key = key_of(operation)
                self.counts["operations"] += 1
                if flow.expect is Expect.REFUSED:
                    continue
                known = self.payloads.setdefault(key, operation)
                assert known == operation, f"the plan has two payloads for {key}"

    def is_answered(self, flow: Flow) -> bool:
        """True when nothing of the flow needs to be sent any more."""
        if flow.expect is Expect.REFUSED:  # nothing was promised to whoever asks for such things
            return True
        for operation in flow.operations:
            key = key_of(operation)
            if key in self.refused and key not in self.unknown:
                return True
            if not (key in self.acknowledged or key in self.spooled):
                return False
        return True

    def refused_for_funds(self) -> list[Flow]:
        """What was refused for lack of money, to be asked for again: nothing may be left of it."""
        again = [
            Flow((self.payloads[key],), Expect.EITHER)
            for key, refused in self.refused.items()
            if refused.error == FUNDS and key.endswith("/hold/0") and key in self.payloads
        ][:AGAIN_MAX]
        for flow in again:
            del self.refused[key_of(flow.operations[0])]
        return again

    def not_posted(self, flows: Iterable[Flow]) -> list[str]:
        """Which of these should have been posted, and were refused."""
        keys = {key_of(op) for f in flows if f.expect is Expect.POSTED for op in f.operations}
        return [key for key in keys if key not in self.acknowledged and key in self.refused]

    def note_acknowledged(self, report: Acknowledged) -> None:
        """The ledger's promise. From here on the entry must be in the journal for ever."""
        key = report.key
        self._note(key, "duplicates" if report.duplicate else "posted")
        told = self.acknowledged.setdefault(key, report.seq)
        if told != report.seq:
            self.told_twice[key] = (told, report.seq)
        self.refused.pop(key, None)
        self.fresh.append(key)
        self._write("acknowledged", key, report.seq, self.payloads.get(key, report.legs))

    def note_spooled(self, report: Spooled) -> None:
        """The spool's promise."""
        self._note(report.key, "spooled")
        self.spooled.add(report.key)
        self._write("spooled", report.key, None, self.payloads.get(report.key))

    def note_unknown(self, report: Unknown) -> None:
        """Nobody knows, until it is sent again."""
        self.counts["unknown"] += 1
        if report.key not in self.acknowledged:
            self.unknown.add(report.key)

    def note_refused(self, report: Refused) -> None:
        """Nothing was written."""
        self._note(report.key, "refused")
        self.refused[report.key] = report
        self.spooled.discard(report.key)

    def _note(self, key: str, outcome: str) -> None:
        self.counts[outcome] += 1
        if key in self.unknown:
            self.unknown.discard(key)
            self.counts["unknown_resolved"] += 1

    def _write(self, what: str, key: str, seq: int | None, payload: object) -> None:
        line = {"what": what, "key": key, "seq": seq, "payload": payload}
        self._file.write(orjson.dumps(line) + b"\n")
