"""The difference estimator: what one audit moves, so that long-run pay is the audited reading.

    adjustment = (audited - paid) / p, for each payee and for `unattributed`

With probability p an inference is audited, so the expected pay is paid + p * (audited - paid) / p =
audited, whatever is wrong with the cheap method: a better one only makes the corrections smaller.
(Difference estimator of survey sampling: Saerndal, Swensson, Wretman, Model Assisted Survey
Sampling, 6.3.) Both readings divide the same pool, so the adjustment sums to 0.
"""

import hashlib
from collections.abc import Mapping
from fractions import Fraction


def adjustment(
    paid: Mapping[str, int], audited: Mapping[str, int], rate: Fraction, *, salt: str
) -> dict[str, int]:
    """What each account gets, in nano-USD, negative where it gives back; without zeros; sums to 0.

    `paid` and `audited` are whole nano-USD by account and sum to the same pool (ValueError). The
    one rounding: (audited - paid) / p down to whole nano-USD, then one more for those with the
    largest remainders, ties ordered by SHA-256(salt, account). At a rate of 1 nothing is rounded.
    """
    if sum(paid.values()) != sum(audited.values()):
        raise ValueError("paid and audited must divide the same pool")
    exact = {
        account: (audited.get(account, 0) - paid.get(account, 0)) / rate
        for account in {*paid, *audited}
    }
    parts = {account: nano.numerator // nano.denominator for account, nano in exact.items()}

    def order(account: str) -> tuple[Fraction, bytes]:
        tie = hashlib.sha256(f"{salt}\n{account}".encode()).digest()
        return parts[account] - exact[account], tie

    for account in sorted(parts, key=order)[: -sum(parts.values())]:
        parts[account] += 1
    return {account: nano for account, nano in sorted(parts.items()) if nano}
