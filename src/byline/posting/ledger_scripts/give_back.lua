-- A hold goes back whole: void (nothing was served) or expire (its time is over).
-- ARGV own: inference, kind, application (of a void), time_ms
return once(function()
  local inference, kind, application = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
  local facts = redis.call('HMGET', FACTS, 'state', 'application', 'held', 'expires_ms')
  local state, holder, held, expires_ms = facts[1], facts[2], facts[3], facts[4]
  if kind == 'expire' then
    if state ~= 'held' or tonumber(expires_ms) > tonumber(ARGV[OWN + 3]) then
      return answer('nothing', '')
    end
  elseif state ~= 'held' or holder ~= application then
    refuse('void without hold: the inference is ' .. (state or 'unknown'))
  end
  local legs = {'hold:' .. inference, '-' .. held, 'app:' .. holder, held}
  check(kind, legs)
  local posted = post(kind, legs)
  redis.call('HSET', FACTS, 'state', kind == 'void' and 'voided' or 'expired')
  redis.call('ZREM', HOLDS, inference)
  return posted
end)
