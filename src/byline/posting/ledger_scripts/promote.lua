-- Raises the epoch after a replica took over, and answers it; nothing where there is no ledger, or
-- an older one than the writer's. KEYS 1 meta
-- ARGV 1 the writer's epoch  2 the primary's id in its cluster, or ''
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or tonumber(epoch) < tonumber(ARGV[1]) then return false end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'primary', ARGV[2]) end
return tostring(redis.call('HINCRBY', KEYS[1], 'epoch', 1))
