"""Postings that travel together over one connection, and the reading of their answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hiredis import ReplyError

from byline.errors import LedgerUnconfirmed
from byline.posting.answers import Answer, attempt
from byline.posting.call import Call
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
    """A few flights, those of one operation in one call. The scripts that the connection does not
    know yet go first.
    """

    def __init__(self, keys: Keys, epoch: int, known_scripts: set[str]) -> None:
        self.size = 0  # bytes, about
        self._keys = keys
        self._epoch = epoch
        self._known_scripts = known_scripts
        self._loads: list[bytes] = []
        self._calls: dict[str, Call] = {}  # by their script's hash
        self._flights: dict[str, list[Flight]] = {}  # the same
        self._endings: list[bytes] = []

    @property
    def flights(self) -> list[Flight]:
        """In the order of `answers`."""
        return [flight for together in self._flights.values() for flight in together]

    def add(self, flight: Flight, script: Script) -> None:
        """Take one more posting on board."""
        if script.sha1 not in self._known_scripts:
            self._known_scripts.add(script.sha1)
            self._loads.append(pack(("SCRIPT", "LOAD", script.text)))
        call = self._calls.get(script.sha1) or Call(script)
        self.size += call.add(flight.posting, self._keys)
        self._calls[script.sha1] = call
        self._flights.setdefault(script.sha1, []).append(flight)

    def end_with(self, commands: Sequence[tuple[str, ...]]) -> None:
        """What makes sure that the postings are on the replicas."""
        self._endings = [pack(command) for command in commands]

    def commands(self) -> tuple[bytes, int]:
        """The bytes to send, and how many replies they will have."""
        calls = [pack(call.command(self._keys, self._epoch)) for call in self._calls.values()]
        parts = [*self._loads, *calls, *self._endings]
        return b"".join(parts), len(parts)

    def answers(self, replies: Sequence[Reply], confirmation: Confirmation) -> list[Answer]:
        """What each flight was answered. Raises NotItsAnswer if the replies have lost their order.

        Nothing is believed before every reply of the batch has been looked at.
        """
        first, end = len(self._loads), len(self._loads) + len(self._calls)
        answers = [
            answer
            for call, reply in zip(self._calls.values(), replies[first:end], strict=True)
            for answer in call.answers(reply)
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
