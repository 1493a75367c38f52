"""What a poster asks a server before it trusts it with money."""

from collections.abc import Sequence
from dataclasses import dataclass

from byline.errors import LedgerFenced, LedgerMisconfigured, LedgerUnavailable
from byline.posting.keys import Keys
from byline.posting.pipeline import Reply, require_no_error

REQUIRED = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",  # else nothing is synced while the file is rewritten
    "maxmemory-policy": "noeviction",
}


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server's settings, and how far it has come with the ledger."""

    settings: dict[str, str]
    epoch: int  # 0: it has no such ledger
    seq: int
    has_waitaof: bool  # Redis 7.2, Valkey 7.2 and later

    def require_safe(self) -> None:
        """Raise LedgerMisconfigured where it may lose an answered write or evict a balance."""
        wrong = [
            f"{setting} is '{self.settings.get(setting)}', not '{value}'"
            for setting, value in REQUIRED.items()
            if self.settings.get(setting) != value
        ]
        if wrong:
            raise LedgerMisconfigured(f"the server could lose money: {'; '.join(wrong)}")

    def require_not_behind(self, epoch: int, seq: int) -> None:
        """Raise LedgerFenced where a writer at `epoch` that was told `seq` would go back in time.

        After a promotion, which raises the epoch, entries that no replica had may be missing: that
        was somebody's decision. Under the same epoch they can't be.
        """
        if self.epoch < epoch:
            raise LedgerFenced(
                f"the server's epoch is {self.epoch}, this writer has {epoch}: it is an old primary"
            )
        if self.epoch == epoch and self.seq < seq:
            raise LedgerFenced(
                f"the server's journal ends at {self.seq}, this writer was told {seq}: "
                "it has lost entries, and nobody has promoted it"
            )


def questions(keys: Keys) -> list[tuple[str, ...]]:
    """The commands that `state_from` reads the answers of."""
    return [
        ("CONFIG", "GET", *REQUIRED),
        ("HMGET", keys.meta, "epoch", "seq"),
        ("COMMAND", "INFO", "WAITAOF"),
    ]


def state_from(replies: Sequence[Reply]) -> ServerState:
    """The answers to `questions`. Raises LedgerUnavailable; without rights, LedgerMisconfigured."""
    require_no_error("look at the ledger's server", replies)
    try:
        settings, (epoch, seq), described = replies
        return ServerState(
            settings=dict(zip(settings[::2], settings[1::2], strict=True)),
            epoch=int(epoch or 0),
            seq=int(seq or 0),
            has_waitaof=bool(described and described[0]),
        )
    except (TypeError, ValueError) as problem:
        raise LedgerUnavailable("look at the ledger's server: its answers make no sense") from (
            problem
        )
