-- The last step of a rebuild: what was folded replaces what is stored and the epoch rises.
-- KEYS 1 meta  2 journal  3 snapshot  4 balances  5 folded balances  6 holds  7 folded holds
--      8 pools  9 folded pools     ARGV 1 seq folded  2 our freeze
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if (newest and newest[1] or '0-1') ~= ARGV[1] .. '-1' then return 0 end
for stored = 4, 8, 2 do
  local folded = stored + 1
  if redis.call('EXISTS', KEYS[folded]) == 1 then
    redis.call('RENAME', KEYS[folded], KEYS[stored])
  else
    redis.call('DEL', KEYS[stored])
  end
end
redis.call('HSET', KEYS[1], 'seq', ARGV[1])
-- A snapshot of entries that the journal has lost is one of another history.
if tonumber(redis.call('HGET', KEYS[1], 'snapshot') or '0') > tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[3])
  redis.call('HDEL', KEYS[1], 'snapshot', 'snapshot_sha256')
end
if redis.call('HGET', KEYS[1], 'frozen') == ARGV[2] then redis.call('HDEL', KEYS[1], 'frozen') end
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
