"""The archive's tables. Money is BIGINT nano-USD; every row says which ledger it came from.

`entries` has what the journal had, for ever, with a permanent UNIQUE key; `legs` make every
account's history a query; the rest is kept by the same transaction that adds entries. The sums by
day are there so that a question about a month never reads all of its lines.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    column,
)

tables = MetaData()

LEDGER = 64  # characters of a ledger's name
ACCOUNT = 128
KEY = 64

SCHEMA_VERSION = 1

# One row: what says that these tables are ours, and in which form.
archive_version = Table(
    "byline_archive", tables,
    Column("version", Integer, primary_key=True),
)  # fmt: skip

# How far the ledger has been exported. The row is locked by whoever exports.
progress = Table(
    "progress", tables,
    Column("ledger", String(LEDGER), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # of the newest entry in the archive
)  # fmt: skip

entries = Table(
    "entries", tables,
    Column("ledger", String(LEDGER), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("key", String(KEY), nullable=False),  # `<UUIDv7>/<operation>/<ordinal>`
    Column("kind", String(16), nullable=False),
    Column("inference", String(36)),
    Column("adapter_version", String(ACCOUNT)),
    Column("time_ms", BigInteger, nullable=False),
    Column("policy", String(32), nullable=False),
    Column("manifest_sha256", String(64)),
    Column("charge", BigInteger, nullable=False),
    Column("text", Text, nullable=False),  # the canonical bytes, so that they can be hashed again
    UniqueConstraint("ledger", "key"),
    Index("entries_of_inference", "inference"),
)  # fmt: skip

legs = Table(
    "legs", tables,
    Column("ledger", String(LEDGER), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("account", String(ACCOUNT), nullable=False),
    Column("nano", BigInteger, nullable=False),
    Column("balance", BigInteger, nullable=False),  # the account's, after this leg
    ForeignKeyConstraint(["ledger", "seq"], ["entries.ledger", "entries.seq"]),
    Index("legs_of_account", "account", "ledger", "seq", unique=True),
)  # fmt: skip

# Every account's balance at `progress.seq`: what is compared with the ledger. A `hold:` or `open:`
# account is here as long as there is something in it; any other stays, also with zero.
accounts = Table(
    "accounts", tables,
    Column("account", String(ACCOUNT), primary_key=True),
    Column("ledger", String(LEDGER), primary_key=True),
    Column("nano", BigInteger, nullable=False),
)  # fmt: skip

# The sums of an account's legs, by UTC day; not of `hold:` and `open:` accounts.
account_days = Table(
    "account_days", tables,
    Column("account", String(ACCOUNT), primary_key=True),
    Column("ledger", String(LEDGER), primary_key=True),
    Column("day", Integer, primary_key=True),  # days since 1970-01-01
    Column("kind", String(16), primary_key=True),
    Column("adapter_version", String(ACCOUNT), primary_key=True),  # empty: none
    Column("nano", BigInteger, nullable=False),
    Column("legs", BigInteger, nullable=False),  # how many
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
)  # fmt: skip

# One row a captured inference: what usage is counted from.
inferences = Table(
    "inferences", tables,
    Column("ledger", String(LEDGER), primary_key=True),
    Column("inference", String(36), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # of the capture
    Column("time_ms", BigInteger, nullable=False),
    Column("application", String(ACCOUNT), nullable=False),
    Column("model", String(ACCOUNT), nullable=False),  # the name that was asked for
    Column("served_by", String(ACCOUNT), nullable=False),
    Column("adapter_version", String(ACCOUNT)),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("usage_source", String(16), nullable=False),
    Column("partial", Boolean, nullable=False),
    Column("charge", BigInteger, nullable=False),
    Index("inferences_of_application", "application", "ledger", "seq"),
)  # fmt: skip

# The sums of an application's inferences, by UTC day.
usage_days = Table(
    "usage_days", tables,
    Column("application", String(ACCOUNT), primary_key=True),
    Column("ledger", String(LEDGER), primary_key=True),
    Column("day", Integer, primary_key=True),  # days since 1970-01-01
    Column("model", String(ACCOUNT), primary_key=True),
    Column("served_by", String(ACCOUNT), primary_key=True),
    Column("inferences", BigInteger, nullable=False),
    Column("partial", BigInteger, nullable=False),  # how many of them
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("charge", BigInteger, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
)  # fmt: skip

# The texts behind the entries' hashes: capture records, attributions, decisions. A text that the
# ledger had no more when its entry was exported is NULL: a hash that can't be explained.
manifests = Table(
    "manifests", tables,
    Column("sha256", String(64), primary_key=True),
    Column("text", Text),
    Index(
        "manifests_missing", "sha256",
        sqlite_where=column("text").is_(None), postgresql_where=column("text").is_(None),
    ),
)  # fmt: skip

# Which dataset an adapter version was trained on: earnings are shown by dataset through it.
adapters = Table(
    "adapters", tables,
    Column("adapter_version", String(ACCOUNT), primary_key=True),
    Column("adapter", String(ACCOUNT), nullable=False),
    Column("dataset", String(ACCOUNT), nullable=False),
)  # fmt: skip

# Where each closed month ends in the journal, decided once: the same for all its statements.
closed_months = Table(
    "closed_months", tables,
    Column("ledger", String(LEDGER), primary_key=True),
    Column("month", String(7), primary_key=True),  # YYYY-MM
    Column("from_seq", BigInteger, nullable=False),
    Column("to_seq", BigInteger, nullable=False),
)  # fmt: skip

# Monthly statements, frozen: never changed once they are here. An account's statements cover
# consecutive ranges of the journal, so each of its lines is in exactly one.
statements = Table(
    "statements", tables,
    Column("ledger", String(LEDGER), primary_key=True),
    Column("account", String(ACCOUNT), primary_key=True),
    Column("month", String(7), primary_key=True),  # YYYY-MM
    Column("from_seq", BigInteger, nullable=False),  # these four stand in the JSON, too
    Column("to_seq", BigInteger, nullable=False),
    Column("opening_nano", BigInteger, nullable=False),
    Column("closing_nano", BigInteger, nullable=False),
    Column("json", Text, nullable=False),  # canonical; the CSV and the PDF are made from it
    Column("sha256", String(64), nullable=False),
)  # fmt: skip
