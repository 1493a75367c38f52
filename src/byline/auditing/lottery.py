"""Which inferences are audited: a lottery that anyone recomputes and nobody can grind.

An inference is audited iff SHA-256(commitment || inference id) < p * 2^256, the hash read as one
big-endian integer. The commitment is the text of the tree head of the smallest tree that covers the
inference's capture: origin, size and root, a line each, without signatures. So a ticket is known
only once the capture has its place in the log, and depends on every entry before it; every later
signed head continues that tree, so anyone with the log computes the ticket.
"""

import hashlib
from fractions import Fraction

from byline.errors import InvalidInput

TICKETS = 1 << 256


def ticket(commitment: bytes, inference: str) -> int:
    """What the inference drew, in [0, 2^256)."""
    return int.from_bytes(hashlib.sha256(commitment + inference.encode("ascii")).digest())


def is_drawn(commitment: bytes, inference: str, rate: Fraction) -> bool:
    """Whether the inference is audited at this rate; a rate of 1 audits all."""
    return ticket(commitment, inference) < rate * TICKETS


def parse_rate(text: str) -> Fraction:
    """The exact rate in `1/20` or `0.05`. Raises InvalidInput unless 0 < rate <= 1."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError) as problem:
        raise InvalidInput(f"'{text}' is no audit rate: write 1/20 or 0.05") from problem
    if not 0 < rate <= 1:
        raise InvalidInput(f"an audit rate of {text} is not in (0, 1]")
    return rate
