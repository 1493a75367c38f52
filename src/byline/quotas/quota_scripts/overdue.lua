-- The reservations that nobody has corrected in their time, the oldest first.
-- KEYS 1 clock  2 open reservations (zset)   ARGV 1 how many at most
local now = time_now(KEYS[1])
return call('ZRANGEBYSCORE', KEYS[2], '-inf', digits(now), 'LIMIT', 0, ARGV[1])
