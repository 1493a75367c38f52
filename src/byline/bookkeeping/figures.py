"""Draws up a round's figures from the fold and the last look. Pure."""

from collections.abc import Mapping

from byline.bookkeeping.findings import Figures
from byline.bookkeeping.live import LiveBooks
from byline.bookkeeping.readings import Look
from byline.errors import LedgerRefused
from byline.posting.postings import event_ms

SHOWN = ("platform", "host", "funding", "payout", "refund", "rounding")
SUMS = {
    "app": "applications", "contrib": "contributors", "owner": "owners", "base": "base_models",
    "unattributed": "unattributed", "hold": "holds", "open": "pools",
}  # fmt: skip


def figures_of(live: LiveBooks, look: Look, *, memory_used_ratio: float, now_ms: int) -> Figures:
    """The gauges of this round."""
    pool_ms = look.oldest_pool_ms
    return Figures(
        conservation_error_nano=live.conservation_error_nano(),
        folded_seq=live.fold.seq,
        lag_entries=max(look.newest_seq - live.fold.seq, 0),
        open_holds=look.holds,
        oldest_hold_seconds=_age(_placed_ms(look.oldest_hold), now_ms),
        open_pools=look.pools,
        oldest_pool_seconds=_age(pool_ms, now_ms),
        snapshot_seq=look.meta.snapshot,
        exported_seq=look.meta.exported,
        trimmed_seq=look.meta.trimmed,
        memory_used_ratio=memory_used_ratio,
        frozen=look.meta.frozen,
        balances=balances_shown(live.fold.accounts),
    )


def balances_shown(accounts: Mapping[str, int]) -> dict[str, int]:
    """The system accounts one by one, all others as sums by what they are: few names for ever."""
    shown = dict.fromkeys((*SHOWN, *SUMS.values(), "other"), 0)
    for account, nano in accounts.items():
        name = account if account in SHOWN else SUMS.get(account.partition(":")[0], "other")
        shown[name] += nano
    return shown


def _placed_ms(inference: str | None) -> int | None:
    """When the hold was placed, by the inference's id."""
    try:
        return None if inference is None else event_ms(inference)
    except LedgerRefused:
        return None


def _age(since_ms: int | None, now_ms: int) -> float:
    return 0.0 if since_ms is None else max(now_ms - since_ms, 0) / 1000
