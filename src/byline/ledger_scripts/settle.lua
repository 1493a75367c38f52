-- Closing the open account is the guard: what is open is settled once, at any age, and wholly.
-- ARGV own: inference, ordinal, open account, pool, adapter version, the attribution's record,
--   then the legs flat, contributors first
-- KEYS from 10: the contributors' earnings lines, in the legs' order
local answer = event_answer()
if answer then return answer end
local ordinal, account, pool = ARGV[OWN + 1], ARGV[OWN + 2], ARGV[OWN + 3]
if redis.call('HGET', INFERENCE, 'adapter_version') ~= ARGV[OWN + 4] then
  return refused('the inference was not answered by ' .. ARGV[OWN + 4])
end
if redis.call('HGET', BALANCES, account) ~= pool then
  return refused(account .. ' does not hold the pool')
end
local legs = legs_from(OWN + 6, {{account, '-' .. pool}})
answer = legs_answer(legs)
if answer then return answer end
local posted = post('settle', legs)
redis.call('HSET', INFERENCE, 'attribution:' .. ordinal, ARGV[OWN + 5],
  'settle_seq:' .. ordinal, posted[2])
redis.call('ZREM', POOLS, account)
for i = 10, #KEYS do
  redis.call('LPUSH', KEYS[i], posted[2])
  redis.call('LTRIM', KEYS[i], 0, LINES_MAX - 1)
end
return posted
