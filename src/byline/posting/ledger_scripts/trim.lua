-- Takes entries off the journal's beginning: only what is exported, in a snapshot and, where there is
-- a notary, in its log may go.
-- KEYS 1 journal  2 meta     ARGV 1 the newest entry to go.     Answers the newest that is gone.
local meta = redis.call('HMGET', KEYS[2], 'exported', 'snapshot', 'seq', 'trimmed', 'notarised')
local exported, snapshot = tonumber(meta[1] or '0'), tonumber(meta[2] or '0')
local seq, trimmed = tonumber(meta[3] or '0'), tonumber(meta[4] or '0')
local notarised = tonumber(meta[5] or seq)
-- The entries at those positions stay: a post looks at the newest, the exporter at the exported, the
-- notary at the one that it logged last.
local last = math.min(tonumber(ARGV[1]), exported - 1, snapshot - 1, notarised - 1, seq - 1)
if last <= trimmed then return trimmed end
redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%.0f-1', last + 1))
redis.call('HSET', KEYS[2], 'trimmed', string.format('%.0f', last))
return last
