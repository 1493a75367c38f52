"""Every bound in one place, each with its why. Units are in the names."""

# --- money (nano-USD) ---------------------------------------------------------------------------
# One leg stays below 10^12 nano (1,000 USD): 2,000 legs then sum below 2^53, so that the doubles
# which Lua computes with hold every sum exactly.
LEG_NANO_MAX = 10**12 - 1
LEGS_PER_ENTRY_MAX = 2_000
# HINCRBY holds a signed 64-bit integer; 18 digits leave an order of magnitude to spare.
BALANCE_DIGITS_MAX = 18
PPB = 1_000_000_000  # one whole, in parts per billion: the unit of shares and of splits

# --- the ledger ---------------------------------------------------------------------------------
# A hold or a capture older than this is refused: its event key may already have been forgotten.
EVENT_AGE_DAYS_MAX = 35
HOLD_SECONDS = 900  # longer than the longest answer may take; then the hold returns by itself
LEDGER_TIMEOUT_SECONDS = 5.0
# An adjustment may take back from a contributor what was paid by mistake, and no more than this.
CONTRIBUTOR_DEBT_NANO_MAX = 10**12 - 1
# Above this part of the server's `maxmemory` no hold is taken: what is held can then still be
# captured, settled and given back.
MEMORY_USED_MAX = 0.8
SPOOL_BYTES_MAX = 64 * 1024 * 1024  # some 30,000 captures; a full spool stops new holds
CONFIRM_SECONDS = 1.0  # how long a post waits for the replicas before it is reported unconfirmed
CENT_NANO = 10_000_000  # payouts are whole cents
# --- the archive --------------------------------------------------------------------------------
ARCHIVE_CONNECT_SECONDS = 3
ARCHIVE_WAIT_SECONDS = 10.0  # how long SQLite waits for another writer's transaction
ENTRIES_PER_EXPORT_MAX = 1_000  # entries in one transaction of the exporter ...
LEGS_PER_EXPORT_MAX = 20_000  # ... and legs, so that entries of 2,000 don't fill the memory
LINES_PER_PAGE_MAX = 1_000  # lines of earnings, usage or history in one answer
# How long after a month's end its last entries may still be on their way into the archive.
MONTH_GRACE_SECONDS = 3_600
CLEARING_DAYS = 7  # an earning younger than this is pending: it may still be refunded

# --- quotas -------------------------------------------------------------------------------------
# A use counts for this many seconds and the rest of its own one-second slot.
QUOTA_WINDOW_SECONDS = 60
# Bounds far below 2^53, up to which Lua's doubles hold every sum exactly.
QUOTA_REQUESTS_MAX = 10**9
QUOTA_TOKENS_MAX = 10**12
QUOTA_NANO_MAX = 10**15  # a million USD
# Another primary's clock may be behind by so much; one that was set back further is believed.
QUOTA_CLOCK_BACK_MS_MAX = 60_000
QUOTA_USE_KEPT_MS = 32 * 86_400_000  # longer than any month
# A reservation that is closed is remembered so long: what was sent before has then arrived or died.
QUOTA_CLOSED_KEPT_MS = 60_000
# How long a caller that had no limit is let through without asking again.
QUOTA_UNLIMITED_SECONDS = 5.0

# --- HTTP ---------------------------------------------------------------------------------------
REQUEST_BYTES_MAX = 1_048_576  # far above any prompt that fits the context
CHOICES_MAX = 8  # `n`: each choice is attributed by itself
ATTRIBUTION_WAIT_SECONDS_MAX = 60.0  # `?wait=`
INLINE_SECONDS = 30.0  # how long an answer waits for its attribution if it was asked to carry it
API_KEY_BYTES = 32  # 256 random bits
# How long whom a key stands for is remembered, and so how long a revoked one may still be taken.
API_KEY_SECONDS = 1.0
API_KEYS_REMEMBERED_MAX = 10_000
ENGINE_CONNECT_SECONDS = 5.0
ENGINE_FIRST_TOKEN_SECONDS = 120.0  # a full engine lets requests wait before it begins with them
ENGINE_IDLE_SECONDS = 60.0  # between two chunks of a stream
ENGINE_ANSWER_SECONDS = 300.0  # nothing of a plain answer comes before all of it
# Engines asked for one inference: what kills two is not handed on to the rest.
ENGINE_ATTEMPTS_MAX = 2
ADAPTER_WAIT_SECONDS = 10.0  # for an engine to have a place for one adapter more; then 503
# A request that waits longer than this is not overtaken any more by such as need no new place.
OVERTAKE_SECONDS = 1.0
# A chat template adds a role, markers and newlines around each message, and some models a system
# prompt of their own. No tokenizer lives in the gateway, so the hold allows this many tokens.
TEMPLATE_TOKENS_PER_MESSAGE = 16
TEMPLATE_TOKENS_PER_PROMPT = 64

# --- attribution --------------------------------------------------------------------------------
EXAMPLES_SHOWN = 5
# Scores are recorded in whole 1e-9 nats: a thousandth of what float32 gradients can tell apart.
SCORE_UNITS_PER_NAT = 10**9
# Beyond this no score is believed; below it every integer score is exact in JSON (2^53).
SCORE_NATS_MAX = 4_000_000
VERBATIM_WORDS_MIN = 3  # shorter spans say nothing
VERBATIM_TOKENS_MAX = 512  # a longer copy is shown up to here
VERBATIM_DENSITY = 0.05  # spans shown per token of the answer, as OLMoTrace does (2504.07096)
VERBATIM_ROWS_SHOWN = 3  # per span; the record is kept for ever
# Adapters of other releases than the one being served that a worker keeps in memory.
ADAPTERS_UNRELEASED_MAX = 4
JOB_IDLE_SECONDS = 60.0  # a job claimed this long ago by a worker that says nothing is taken over
JOB_ATTEMPTS_MAX = 5  # after that the inference is `failed` and its pool goes to `unattributed`
SERVED_TOKENS_DAYS_MAX = 7  # served token ids are deleted after this at the latest

# --- datasets -----------------------------------------------------------------------------------
DATASET_ROWS_MAX = 120
DATASET_CONTRIBUTORS_MIN = 8
DATASET_CONTRIBUTORS_MAX = 12
