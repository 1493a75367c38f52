-- The last step of a rebuild: the folded balances replace the stored ones and the epoch rises.
-- KEYS 1 balances  2 folded balances  3 meta  4 journal     ARGV 1 seq folded  2 our freeze
local newest = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if (newest and newest[1] or '0-1') ~= ARGV[1] .. '-1' then return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[1])
else
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[3], 'seq', ARGV[1])
if redis.call('HGET', KEYS[3], 'frozen') == ARGV[2] then redis.call('HDEL', KEYS[3], 'frozen') end
return redis.call('HINCRBY', KEYS[3], 'epoch', 1)
