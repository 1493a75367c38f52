-- Before inferences are forgotten: from here on no hold and no capture as old as they is taken.
-- KEYS 1 meta     ARGV 1 the time of the newest of them, in ms.     Never goes back.
if tonumber(ARGV[1]) > tonumber(redis.call('HGET', KEYS[1], 'forgotten_ms') or '0') then
  redis.call('HSET', KEYS[1], 'forgotten_ms', ARGV[1])
end
