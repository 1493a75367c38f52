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
CAPTURE_RETRY_SECONDS = 600.0  # how long a gateway re-sends a capture while the ledger is away
LINES_PER_CONTRIBUTOR_MAX = 1_000  # recent earnings lines kept at hand

# --- HTTP ---------------------------------------------------------------------------------------
REQUEST_BYTES_MAX = 1_048_576  # far above any prompt that fits the context
CHOICES_MAX = 8  # `n`: each choice is attributed by itself
ATTRIBUTION_WAIT_SECONDS_MAX = 60.0  # `?wait=`
API_KEY_BYTES = 32  # 256 random bits
ENGINE_CONNECT_SECONDS = 5.0
ENGINE_IDLE_SECONDS = 300.0  # between two chunks; a CPU engine that is compiling is slow
# A chat template adds a role, markers and newlines around each message, and some models a system
# prompt of their own. No tokenizer lives in the gateway, so the hold allows this many tokens.
TEMPLATE_TOKENS_PER_MESSAGE = 16
TEMPLATE_TOKENS_PER_PROMPT = 64

# --- attribution --------------------------------------------------------------------------------
EXAMPLES_SHOWN = 5
JOB_IDLE_SECONDS = 60.0  # a job claimed this long ago by a worker that says nothing is taken over
JOB_ATTEMPTS_MAX = 5  # after that the inference is `failed` and its pool goes to `unattributed`
SERVED_TOKENS_DAYS_MAX = 7  # served token ids are deleted after this at the latest

# --- datasets -----------------------------------------------------------------------------------
DATASET_ROWS_MAX = 120
DATASET_CONTRIBUTORS_MIN = 8
DATASET_CONTRIBUTORS_MAX = 12
