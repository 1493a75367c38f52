-- A hold goes back whole: void (nothing was served) or expire (its time is over).
-- ARGV own: inference, kind, application (of a void), time_ms
local answer = event_answer()
if answer then return answer end
local inference, kind, application = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
local facts = redis.call('HMGET', INFERENCE, 'state', 'application', 'held', 'expires_ms')
local state, holder, held, expires_ms = facts[1], facts[2], facts[3], facts[4]
if kind == 'expire' then
  if state ~= 'held' or tonumber(expires_ms) > tonumber(ARGV[OWN + 3]) then return {'nothing', ''} end
elseif state ~= 'held' or holder ~= application then
  return refused('void without hold: the inference is ' .. (state or 'unknown'))
end
local legs = {{'hold:' .. inference, '-' .. held}, {'app:' .. holder, held}}
answer = legs_answer(legs)
if answer then return answer end
local posted = post(kind, legs)
redis.call('HSET', INFERENCE, 'state', kind == 'void' and 'voided' or 'expired')
redis.call('ZREM', HOLDS, inference)
return posted
