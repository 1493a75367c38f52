-- ARGV own: inference, application, nano, expires_ms
return once(function()
  local inference, application, nano = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
  local expires_ms = ARGV[OWN + 3]
  if not string.find(expires_ms, '^%d+$') then refuse('bad time ' .. expires_ms) end
  refuse_forgotten()
  if redis.call('HLEN', FACTS) > 0 then refuse('the inference was held before') end
  local legs = {'app:' .. application, '-' .. nano, 'hold:' .. inference, nano}
  check('hold', legs)
  local posted = post('hold', legs)
  redis.call('HSET', FACTS, 'state', 'held', 'application', application, 'held', nano,
    'expires_ms', expires_ms)
  redis.call('ZADD', HOLDS, expires_ms, inference)
  return posted
end)
