"""Postings that travel together over one connection, and the reading of their answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hiredis import ReplyError

from byline.errors import LedgerUnconfirmed
from byline.posting.answers import Answer, answer_to, attempt
from byline.posting.confirmation import Confirmation
from byline.posting.keys import Keys
from byline.posting.pipeline import Reply, pack
from byline.posting.postings import Posting
from byline.posting.redis_client import refusal
from byline.posting.scripts import Script
from byline.records import Posted


@dataclass(slots=True)
class Flight:
    """One posting on its way, from `post` to its answer."""

    posting: Posting
    answer: "asyncio.Future[Posted | None]"
    started: float
    sent_again: bool = False  # the server did not have the script: nothing had run


class Batch:
    """A few flights, packed. The scripts that the connection does not know yet go first."""

    def __init__(self, keys: Keys, epoch: int, known_scripts: set[str]) -> None:
        self.flights: list[Flight] = []
        self.size = 0  # bytes
        self._keys = keys
        self._epoch = str(epoch)
        self._known_scripts = known_scripts
        self._loads: list[bytes] = []
        self._calls: list[bytes] = []
        self._endings: list[bytes] = []

    def add(self, flight: Flight, script: Script) -> None:
        """Pack one more posting."""
        if script.sha1 not in self._known_scripts:
            self._known_scripts.add(script.sha1)
            self._loads.append(pack(("SCRIPT", "LOAD", script.text)))
        posting = flight.posting
        names = self._keys.of(posting)
        call = pack((
            "EVALSHA", script.sha1, len(names), *names,
            posting.key, posting.digest, self._epoch, *posting.entry, *posting.arguments,
        ))  # fmt: skip
        self._calls.append(call)
        self.flights.append(flight)
        self.size += len(call)

    def end_with(self, commands: Sequence[tuple[str, ...]]) -> None:
        """What makes sure that the postings are on the replicas."""
        self._endings = [pack(command) for command in commands]

    def commands(self) -> tuple[bytes, int]:
        """The bytes to send, and how many replies they will have."""
        parts = [*self._loads, *self._calls, *self._endings]
        return b"".join(parts), len(parts)

    def answers(self, replies: Sequence[Reply], confirmation: Confirmation) -> list[Answer]:
        """What each flight was answered. Raises NotItsAnswer if the replies have lost their order.

        Nothing is believed before every reply of the batch has been looked at.
        """
        first, end = len(self._loads), len(self._loads) + len(self._calls)
        answers = [
            answer_to(flight.posting, reply)
            for flight, reply in zip(self.flights, replies[first:end], strict=True)
        ]
        not_loaded = [reply for reply in replies[:first] if isinstance(reply, ReplyError)]
        if not_loaded:
            return [refusal("load a ledger script", str(not_loaded[0]))] * len(answers)
        if not self._endings:
            return answers
        return self._unless_confirmed(answers, replies[end:], confirmation)

    def _unless_confirmed(
        self, answers: list[Answer], replies: Sequence[Reply], confirmation: Confirmation
    ) -> list[Answer]:
        """What was posted is only a promise while too few replicas have it."""
        found = confirmation.found(replies)
        if found is not None and found >= confirmation.replicas:
            return answers
        so_far = "an unknown number" if found is None else found
        return [
            LedgerUnconfirmed(
                f"{attempt(flight.posting)}: posted as {answer.seq}, and it is on {so_far} "
                f"of {confirmation.replicas} replicas"
            )
            if isinstance(answer, Posted)
            else answer
            for flight, answer in zip(self.flights, answers, strict=True)
        ]
