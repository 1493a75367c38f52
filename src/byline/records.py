"""The records of the domain: frozen, slotted, without behaviour of their own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class KeyRole(StrEnum):
    """What an API key may do."""

    APPLICATION = "application"  # asks, pays, reads the attributions of its own inferences
    CONTRIBUTOR = "contributor"  # reads its own earnings and its own line of an attribution
    OWNER = "owner"  # reads what its adapters earned
    OPERATOR = "operator"  # reads everything


@dataclass(frozen=True, slots=True)
class Caller:
    """Who an API key stands for: a role, and the application, contributor or owner it names."""

    role: KeyRole
    subject: str
    organisation: str | None = None  # what an application belongs to, if to any
    key: str = field(default="", compare=False)  # the id of the key that was shown


@dataclass(frozen=True, slots=True)
class Example:
    """One contributed row: what an adapter is trained on and what an answer is traced to."""

    id: str
    contributor: str  # the contributor's id: [a-z0-9-], the tail of its account's name
    licence: str
    source: str  # package, version, file and entry the text stands in
    contributed_at: str  # ISO 8601 date, as recorded at the source; see docs/decisions.md
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """One immutable trained adapter as it is served: its name and its content hash."""

    adapter: str  # the name that applications ask for
    version: str  # `adapter@` and 12 digits of the content hash: the engine's name for it
    path: str  # the artifact's folder, relative to the artifact store
    owner: str
    base_model: str
    dataset: str  # artifact reference
    index: str  # artifact reference


@dataclass(frozen=True, slots=True)
class Release:
    """What is being served: one base model, its adapters, and the router for `auto`."""

    base_model: str  # the name that applications ask for
    base_path: str  # relative to the artifact store
    context_tokens: int
    adapters: tuple[AdapterVersion, ...]
    router: str  # artifact reference


class UsageSource(StrEnum):
    """Where the billed token counts come from."""

    ENGINE = "engine"  # the engine's own usage block
    COUNTED = "counted"  # token ids received before the stream ended early
    PROMPT_ONLY = "prompt_only"  # nothing came back; only the prompt's count is known


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one inference. `completion_tokens` is one count a choice."""

    prompt_tokens: int
    completion_tokens: tuple[int, ...]
    source: UsageSource


@dataclass(frozen=True, slots=True)
class Leg:
    """One account's part of a journal entry, in nano-USD; negative leaves the account."""

    account: str
    nano: int


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One balanced entry of the journal, version 1; `legs` sum to zero."""

    seq: int
    key: str  # `<UUIDv7>/<operation>/<ordinal>`
    kind: str
    inference: str | None
    adapter_version: str | None
    time_ms: int
    policy: str
    manifest_sha256: str | None
    charge: int
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class ServedTokens:
    """The token ids of one answered request, exactly as the engine saw and made them."""

    inference: str
    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    salt: str = ""  # random: without it nobody can try guesses of the text against their hash


@dataclass(frozen=True, slots=True)
class AttributionJob:
    """One choice of one inference that waits for its attribution; written by `capture` itself."""

    inference: str
    ordinal: int  # which choice
    application: str
    adapter_version: str
    index: str  # artifact reference
    tokens_sha256: str  # of the served tokens' line
    pool_nano: int  # what `open:<inference>` holds for this choice
    enqueued_ms: int
    attempts: int = 1
    message_id: str = ""  # the stream's own id, to acknowledge by


class AttributionState(StrEnum):
    """Where an attribution stands; every state but `pending` is final."""

    PENDING = "pending"
    DONE = "done"
    SKIPPED = "skipped"  # there is nothing to attribute: see `reason`
    FAILED = "failed"  # the pool went to `unattributed`: see `reason`


@dataclass(frozen=True, slots=True)
class Share:
    """One contributor's part of one answer. Parts per billion of the pool, and the money."""

    contributor: str
    score: float  # raw influence, in nats of the completion's log-probability
    share_ppb: int
    nano: int


@dataclass(frozen=True, slots=True)
class ExampleInfluence:
    """One training example to show beside an answer; never summed into pay."""

    id: str
    contributor: str
    score: float


@dataclass(frozen=True, slots=True)
class VerbatimRow:
    """Where a row's completion holds the words of a verbatim span: [start, end)."""

    id: str
    contributor: str
    characters: tuple[int, int]
    tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class VerbatimSpan:
    """Words of an answer that stand in rows, too: shown as evidence, never part of any pay.

    The words themselves are in the answer, which its application has, and in the rows: a record is
    kept for ever, and holds no text of an answer.
    """

    characters: tuple[int, int]  # [start, end) in the answer's text
    tokens: tuple[int, int]  # [start, end) in its token ids
    rarity_nats: float  # minus the sum of its tokens' log-frequencies in the rows
    occurrences: int  # in all rows; `rows` are the first of them
    rows: tuple[VerbatimRow, ...]


@dataclass(frozen=True, slots=True)
class Attribution:
    """The whole attribution of one choice. `shares` and `unattributed_ppb` sum to one whole.

    It holds all that its shares are computed from, in integers, so that anyone can replay it
    (`byline.attribution.replayed`). Version 2 had no claims: its shares follow from the scores.
    Records of version 1 had floats for scores and are only read.
    """

    inference: str
    ordinal: int
    state: AttributionState
    reason: str | None = None
    adapter_version: str | None = None
    index: str | None = None
    lift_nats: float | None = None  # log p(answer | adapter) - log p(answer | base model)
    pool_nano: int = 0
    unattributed_nano: int = 0
    unattributed_ppb: int = 0
    shares: tuple[Share, ...] = ()
    examples: tuple[ExampleInfluence, ...] = ()
    scores: Mapping[str, int] = field(default_factory=dict)  # every contributor's, in 1e-9 nats
    claims: Mapping[str, int] | None = None  # in 1e-9 nats, rows below zero cut; None: the scores
    version: int = 3
    method: str | None = None  # how the scores were made
    reliability_ppb: int | None = None  # of the scores, as measured by replication; None: never
    libraries: Mapping[str, str] = field(default_factory=dict)  # what made the scores -> version
    tokens_sha256: str | None = None  # of the served tokens, salted
    tokens_salt: str | None = None
    verbatim: tuple[VerbatimSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Capture:
    """What a finished inference posts. `charge` is the sum of `credits` and `pools`."""

    inference: str
    application: str
    held_nano: int
    charge_nano: int
    credits: tuple[Leg, ...]
    pools: tuple[int, ...]  # one a choice; empty where nothing is attributed
    skipped: str | None  # why nothing is attributed; None where `pools` has something
    model: str  # the name the client asked for
    served_by: str  # the adapter version, or the base model's name
    adapter_version: str | None
    index: str | None  # artifact reference of the adapter's index
    usage: Usage
    partial: bool  # the client or the engine went away before the end
    tokens_sha256: str | None
    policy: str


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction by an operator: legs that sum to zero, and why."""

    operation: str  # UUIDv7
    legs: tuple[Leg, ...]
    reason: str
    by: str  # who decided it
    adapter_version: str | None = None  # whose attributions it corrects, if any's


@dataclass(frozen=True, slots=True)
class UnattributedRelease:
    """Money leaves `unattributed:<adapter version>` by a published decision."""

    operation: str  # UUIDv7
    adapter_version: str
    credits: tuple[Leg, ...]  # positive; never the platform's
    decision: str  # where the decision is published: a URL, or its SHA-256


@dataclass(frozen=True, slots=True)
class Refund:
    """So much of an inference's charge goes back to its application."""

    operation: str  # UUIDv7
    inference: str
    nano: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refundable:
    """What a refund of an inference is drawn up from."""

    credits: Mapping[str, int]  # what is left of each credit; empty while nothing can be refunded
    refunded_nano: int
    adapter_version: str | None


@dataclass(frozen=True, slots=True)
class Payout:
    """Whole cents leave a payee's account; `lines` says which earnings they are."""

    operation: str  # UUIDv7
    account: str  # contrib:, owner:, base:, host or platform
    nano: int  # a multiple of CENT_NANO
    statement: str  # `<account>/<YYYY-MM>`: the statement whose lines are paid
    first_seq: int  # the lines paid are the account's in the journal from here ...
    last_seq: int  # ... to here, both included
    opening_nano: int  # what earlier payouts had left
    lines_nano: int  # the sum of the lines
    reference: str  # of the bank or the payment provider; empty until known


@dataclass(frozen=True, slots=True)
class Posted:
    """The ledger's answer: where the entry stands in the journal."""

    seq: int
    duplicate: bool = False  # the same payload had been posted before
    late: bool = False  # a capture after its hold had expired


@dataclass(frozen=True, slots=True)
class InferenceRecord:
    """What the ledger keeps of one captured inference, with each choice's attribution."""

    capture: Capture
    time_ms: int
    legs: Mapping[str, int]  # net credit of each account over all its entries; sums to the charge
    attributions: tuple[Attribution, ...]
    is_late: bool = False  # charged after its hold had expired


@dataclass(frozen=True, slots=True)
class Books:
    """The check of the books: the journal folded and held against the balances."""

    journal_entries: int
    accounts_sum_nano: int
    unbalanced_entries: tuple[int, ...]  # sequence numbers
    gaps: tuple[int, ...]  # sequence numbers that are missing
    drifting_accounts: Mapping[str, tuple[int, int]]  # account -> (folded, stored)
    unbalanced_inferences: Mapping[str, str] = field(default_factory=dict)  # inference -> what
    unreadable_accounts: Mapping[str, str] = field(default_factory=dict)  # account -> what is there

    @property
    def balanced(self) -> bool:
        """True when there is nothing to explain."""
        return not (
            self.accounts_sum_nano or self.unbalanced_entries or self.gaps or self.drifting_accounts
            or self.unbalanced_inferences or self.unreadable_accounts
        )  # fmt: skip
