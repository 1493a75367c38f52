-- Joins the ledger; answers its epoch, or nothing where a journal has none. KEYS 1 meta  2 journal
-- ARGV 1 the joining writer's epoch, 0 if new  2 the primary's id in its cluster, or ''
-- An empty ledger gets its first epoch. In a cluster a failover promotes a replica by itself: the
-- first writer that finds another primary than the one that wrote last raises the epoch, once. A
-- server that is behind the writer is left as it is.
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('HSETNX', KEYS[1], 'epoch', '1') end
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or ARGV[2] == '' or tonumber(epoch) < tonumber(ARGV[1]) then return epoch end
local primary = redis.call('HGET', KEYS[1], 'primary')
if primary == ARGV[2] then return epoch end
redis.call('HSET', KEYS[1], 'primary', ARGV[2])
return primary and tostring(redis.call('HINCRBY', KEYS[1], 'epoch', 1)) or epoch
