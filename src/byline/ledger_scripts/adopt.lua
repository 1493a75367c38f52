-- The last step of a rebuild: the folded balances replace the stored ones and the epoch rises.
-- KEYS 1 balances  2 folded balances  3 meta  4 journal  5 snapshot    ARGV 1 seq folded  2 our freeze
local newest = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if (newest and newest[1] or '0-1') ~= ARGV[1] .. '-1' then return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[1])
else
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[3], 'seq', ARGV[1])
-- A snapshot of entries that the journal has lost is one of another history.
if tonumber(redis.call('HGET', KEYS[3], 'snapshot') or '0') > tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[5])
  redis.call('HDEL', KEYS[3], 'snapshot', 'snapshot_sha256')
end
if redis.call('HGET', KEYS[3], 'frozen') == ARGV[2] then redis.call('HDEL', KEYS[3], 'frozen') end
return redis.call('HINCRBY', KEYS[3], 'epoch', 1)
