-- The last step of a snapshot: what was written aside becomes the newest, if nothing goes back.
-- KEYS 1 meta  2 snapshot  3 written aside     ARGV 1 seq  2 digest  3 writer's epoch  4 accounts
local function refused(status, reason)
  redis.call('DEL', KEYS[3])
  return {status, reason}
end

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'snapshot')
local epoch, last_seq, newest = meta[1], tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
local seq, accounts = tonumber(ARGV[1]), tonumber(ARGV[4])
if epoch ~= ARGV[3] then return refused('fenced', 'the epoch is ' .. tostring(epoch)) end
if seq > last_seq then return refused('refused', 'the journal ends at ' .. last_seq) end
if seq <= newest then return refused('refused', 'there is one at ' .. newest) end
if redis.call('HLEN', KEYS[3]) ~= accounts then
  return refused('refused', 'not all accounts were written')
end
if accounts == 0 then
  redis.call('DEL', KEYS[2])
else
  redis.call('RENAME', KEYS[3], KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
redis.call('HSET', KEYS[1], 'snapshot', ARGV[1], 'snapshot_sha256', ARGV[2])
return {}
