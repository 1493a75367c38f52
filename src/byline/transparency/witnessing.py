"""What goes between a log and its witnesses: C2SP tlog-witness, `add-checkpoint`. Pure.

The request's body is also the file that shows one history: the older head's size, the path, the
newer head.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from byline.errors import ProofRefused
from byline.transparency.heads import SIZE, parse_hash
from byline.transparency.notes import LINE

PATH_MAX = 63
SIZE_TYPE = "text/x.tlog.size"  # of the answer that says which size the witness has


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A head, and what shows that it continues the one of `old` leaves."""

    old: int
    path: tuple[bytes, ...]
    checkpoint: str

    def text(self) -> str:
        """As it is sent."""
        path = "".join(f"{b64encode(each).decode()}\n" for each in self.path)
        return f"old {self.old}\n{path}\n{self.checkpoint}"


def parse_add_checkpoint(body: str) -> AddCheckpoint:
    """The request in a body. Raises ProofRefused where it is not of that form."""
    proof, gap, checkpoint = body.partition("\n\n")
    first, *lines = proof.split("\n")
    size = first.removeprefix("old ")
    if not gap or size == first or not SIZE.fullmatch(size) or len(lines) > PATH_MAX:
        raise ProofRefused("it is no add-checkpoint request: old size, path, tree head")
    return AddCheckpoint(int(size), tuple(map(parse_hash, lines)), checkpoint)


def with_cosignatures(checkpoint: str, lines: Sequence[str]) -> str:
    """The checkpoint with further signature lines. Raises ProofRefused for anything else."""
    for line in lines:
        if not LINE.fullmatch(line.removesuffix("\n")):
            raise ProofRefused(f"'{line[:80]}' is no signature line")
    return checkpoint + "".join(f"{line.removesuffix(chr(10))}\n" for line in lines)
