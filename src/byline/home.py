"""Where everything of one installation lies: the home folder and the names of what is in it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The home folder. Nothing here touches the disk."""

    root: Path

    @property
    def artifacts(self) -> Path:
        """The artifact store."""
        return self.root / "artifacts"

    @property
    def release(self) -> Path:
        """What is being served."""
        return self.root / "release.json"

    @property
    def aliases(self) -> Path:
        """An installation's own names for what is being served; may be missing."""
        return self.root / "aliases.toml"

    @property
    def served(self) -> Path:
        """Served token ids that wait for their attribution."""
        return self.root / "artifacts" / "served"

    @property
    def counterfactuals(self) -> Path:
        """Adapters trained without some rows, by the hash of what decides their bytes."""
        return self.root / "counterfactuals"

    @property
    def fidelity(self) -> Path:
        """Fidelity measurements, a folder each: study, readings, report."""
        return self.root / "fidelity"

    @property
    def attacks(self) -> Path:
        """Measurements of attacks, a folder each: study, trainings, readings, figures."""
        return self.root / "attacks"

    @property
    def audit_plan(self) -> Path:
        """Which adapter versions are audited, how often, by which counterfactual adapters."""
        return self.root / "audit_plan.json"

    @property
    def audits(self) -> Path:
        """The audits' records, a file a choice."""
        return self.root / "audits"

    @property
    def payment(self) -> Path:
        """Which adapter versions are not paid for now, and the operators' words on that."""
        return self.root / "payment"

    @property
    def ledger(self) -> Path:
        """The Redis-protocol server's append-only file."""
        return self.root / "ledger"

    @property
    def archive_url(self) -> str:
        """The SQL archive, unless an address says otherwise."""
        return f"sqlite:///{self.root.resolve() / 'archive.sqlite'}"

    def spool_of(self, ledger: str) -> Path:
        """Posts that wait for this ledger, which is away. `ledger` is a name from the settings."""
        return self.root / "spool" / ledger

    def log_of(self, ledger: str) -> Path:
        """The ledger's transparency log: static files for everyone."""
        return self.root / "log" / ledger

    def notary_of(self, ledger: str) -> Path:
        """What the notary keeps to itself: the log's signing keys, its secret, its lock."""
        return self.root / "notary" / ledger

    def openings_of(self, ledger: str) -> Path:
        """What opens the log's leaves, for gateways: the notary's state, the keys for receipts."""
        return self.root / "openings" / ledger

    @property
    def keys(self) -> Path:
        """The demo API keys, mode 0600."""
        return self.root / "keys.json"

    @property
    def run(self) -> Path:
        """What the running `byline up` says of itself: process ids and addresses."""
        return self.root / "run.json"

    @property
    def logs(self) -> Path:
        """One log file a program."""
        return self.root / "logs"
