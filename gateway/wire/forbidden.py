"""Fields of a question that never reach the engine, each with its why."""

# Refused unless null or false.
REFUSED = {
    "best_of": "unseen choices would be generated and not charged",
    "use_beam_search": "a beam's answer has no token ids of its own to attribute",
    "echo": "an answer is attributed by the tokens it generates, not by its prompt",
    "prompt_logprobs": "computing them can exhaust the engine's memory",
    "prompt_embeds": "a prompt without token ids can't be attributed",
    "chat_template": "a client's own template can make a prompt of any length",
    "stream_interval": "tokens that the engine holds back would not be charged if a stream is cut",
}
ONE_IS_NONE = ("best_of", "stream_interval")  # of these, 1 asks for nothing
# The gateway's to set, or nobody's: a client's values are dropped.
STRIPPED = (
    "priority",
    "request_id",
    "session_id",
    "cache_salt",
    "vllm_xargs",
    "kv_transfer_params",
    "ec_transfer_params",
    "stream_options",
    "return_token_ids",
    "byline",
)
