"""Asks the policy's witnesses to cosign a new head (C2SP tlog-witness), and holds it to the quorum.

A head without its quorum is not published: whoever asks for cosigned heads would refuse its proofs.
"""

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from byline.errors import ProofRefused, WitnessesAway
from byline.transparency.heads import SIZE, TreeHead, parse_head
from byline.transparency.notes import VerifierKey
from byline.transparency.policies import Policy, Witness
from byline.transparency.tree import NodeAt, consistency
from byline.transparency.witnessing import AddCheckpoint, with_cosignatures

log = logging.getLogger("byline.notary")

WITNESS_SECONDS = 2.0  # between two bytes
ANSWER_SECONDS = 4.0  # for all of them: one slow witness must not hold the log up
ANSWER_BYTES_MAX = 16_384
CONFLICT = 409
NO_POLICY = Policy(())


class WitnessRefused(Exception):
    """A witness did not cosign; its text says why."""


Post = Callable[[str, bytes], tuple[int, str]]


def post_to(url: str, body: bytes) -> tuple[int, str]:
    """POST to a witness; answers status and text.

    Raises OSError where it is away, HTTPException or ValueError where it does not answer as it
    should. It is cut off after `ANSWER_SECONDS`, also if it sends a byte now and then.
    """
    where = urlsplit(url)
    kind = HTTPSConnection if where.scheme == "https" else HTTPConnection
    if where.scheme not in {"http", "https"} or where.hostname is None:
        raise WitnessRefused(f"'{url}' is no address of a witness")
    with closing(kind(where.hostname, where.port, timeout=WITNESS_SECONDS)) as connection:
        connection.connect()
        cut = threading.Timer(ANSWER_SECONDS, _cut, [connection.sock])
        cut.start()
        try:
            connection.request("POST", f"{where.path.rstrip('/')}/add-checkpoint", body)
            with connection.getresponse() as answer:
                return answer.status, answer.read(ANSWER_BYTES_MAX).decode()
        finally:
            cut.cancel()


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):  # it has ended at this very moment
        connected.shutdown(socket.SHUT_RDWR)


class Cosigning:
    """Collects cosignatures."""

    def __init__(self, policy: Policy = NO_POLICY, post: Post = post_to) -> None:
        self._policy = policy
        self._post = post
        self._known: dict[str, int] = {}  # the size that a witness has, as it said

    def cosigned(self, checkpoint: str, head: TreeHead, node: NodeAt) -> str:
        """The checkpoint with the witnesses' lines. Raises WitnessesAway below the quorum."""
        asked = [witness for witness in self._policy.witnesses if witness.url]
        if not asked and self._policy.is_reached([]):
            return checkpoint
        lines: list[str] = []
        signed: list[VerifierKey] = []
        with ThreadPoolExecutor(max(len(asked), 1)) as threads:
            waiting = [threads.submit(self._ask, each, checkpoint, head, node) for each in asked]
        for witness, future in zip(asked, waiting, strict=True):
            try:
                lines.append(future.result())
                signed.append(witness.key)
            except (WitnessRefused, ProofRefused, OSError, HTTPException, ValueError) as problem:
                log.warning("witness %s did not cosign: %s", witness.name, problem)
        if not self._policy.is_reached(signed):
            names = ", ".join(key.name for key in signed) or "none of them"
            raise WitnessesAway(
                f"the quorum '{self._policy.quorum}' did not cosign the head of {head.size}; "
                f"cosigned: {names}"
            )
        return with_cosignatures(checkpoint, lines)

    def _ask(self, witness: Witness, checkpoint: str, head: TreeHead, node: NodeAt) -> str:
        """One witness's signature line; asked twice if it says that it has another size."""
        assert witness.url is not None
        for _ in range(2):
            old = min(self._known.get(witness.name, 0), head.size)
            request = AddCheckpoint(old, tuple(consistency(old, head.size, node)), checkpoint)
            status, text = self._post(witness.url, request.text().encode())
            if status == CONFLICT and SIZE.fullmatch(text.strip()):
                self._known[witness.name] = int(text)
                continue
            if status != 200:
                raise WitnessRefused(f"{status}: {text.strip()[:200]}")
            self._known[witness.name] = head.size
            return _line_of(witness.key, checkpoint, text)
        raise WitnessRefused(f"it has a head of {self._known[witness.name]} leaves")


def _line_of(key: VerifierKey, checkpoint: str, lines: str) -> str:
    """The witness's own line among those it answered with, verified."""
    for line in lines.splitlines():
        _, note = parse_head(with_cosignatures(checkpoint, [line]))
        if note.signers([key]):
            return line
    raise WitnessRefused("no cosignature of its key is in its answer")
