"""The names of one ledger's Redis keys."""

from byline.posting.postings import Posting


class Keys:
    """The names of one ledger's Redis keys. All share one hash tag, so one slot of a cluster."""

    def __init__(self, name: str) -> None:
        tag = f"{{ledger:{name}}}"
        self.tag = tag
        self.balances = f"{tag}:balances"
        self.folded = f"{tag}:balances:folded"
        self.journal = f"{tag}:journal"
        self.meta = f"{tag}:meta"
        self.limits = f"{tag}:limits"
        self.holds = f"{tag}:holds"
        self.holds_folded = f"{tag}:holds:folded"
        self.pools = f"{tag}:pools"
        self.pools_folded = f"{tag}:pools:folded"
        self.jobs = f"{tag}:jobs"
        self.aside = f"{tag}:jobs:aside"  # adapter versions that ever had jobs set aside
        self.blocked = f"{tag}:blocked"
        self.paid = f"{tag}:paid"  # account -> last entry whose line was paid, and what was left
        self.snapshot = f"{tag}:snapshot"  # of the balances at one position of the journal
        self.pulse = f"{tag}:pulse"  # written so that replicas have something to confirm

    def jobs_aside(self, version: str) -> str:
        """The jobs of an adapter version that wait until it is paid again."""
        return f"{self.aside}:{version}"

    def marks(self, bucket: int | str) -> str:
        """Event key -> seq and digest, of the events of one day or of all operators' operations."""
        return f"{self.tag}:marks:{bucket}"

    def inference(self, inference: str) -> str:
        """What is known of one inference, or of one operation of an operator."""
        return f"{self.tag}:inference:{inference}"

    def shared(self) -> list[str]:
        """The first KEYS of a posting script, in prelude.lua's order."""
        return [
            self.balances, self.journal, self.meta, self.limits, self.holds, self.pools, self.jobs,
            self.blocked, self.paid,
        ]  # fmt: skip

    def of(self, posting: Posting) -> list[str]:
        """The KEYS that are the posting's own; as many for each posting of one script."""
        keys = [self.marks(posting.bucket), self.inference(posting.inference)]
        if posting.concerns:
            keys.append(self.inference(posting.concerns))
        return keys
