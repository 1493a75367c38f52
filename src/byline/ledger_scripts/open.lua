-- Makes the epoch of an empty ledger; never raises it. KEYS 1 meta  2 journal
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('HSETNX', KEYS[1], 'epoch', '1') end
return redis.call('HGET', KEYS[1], 'epoch')
