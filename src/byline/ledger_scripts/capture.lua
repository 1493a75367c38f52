-- ARGV own: inference, application, held, charge, held - charge, the capture's record,
--   adapter version, time_ms, the number of jobs, the jobs, then the credit and pool legs flat
local answer = event_answer()
if answer then return answer end
local inference, application, held = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
local charge, rest, record = ARGV[OWN + 3], ARGV[OWN + 4], ARGV[OWN + 5]
local adapter_version, time_ms = ARGV[OWN + 6], ARGV[OWN + 7]
local first_job = OWN + 9
local first_leg = first_job + tonumber(ARGV[OWN + 8])
local facts = redis.call('HMGET', INFERENCE, 'state', 'application', 'held')
local state = facts[1]
if state ~= 'held' and state ~= 'expired' then
  return refused('capture without hold: the inference is ' .. (state or 'unknown'))
end
if facts[2] ~= application or facts[3] ~= held then
  return refused('the capture is not of what was held')
end
-- After its hold has expired the charge is taken from the application itself, below its credit
-- limit if need be: the tokens were served.
local late = state == 'expired'
local legs = {}
if late then
  if charge ~= '0' then legs[1] = {'app:' .. application, '-' .. charge} end
else
  legs[1] = {'hold:' .. inference, '-' .. held}
  if rest ~= '0' then legs[2] = {'app:' .. application, rest} end
  if redis.call('HGET', BALANCES, 'hold:' .. inference) ~= held then
    return refused('the hold account does not hold what was held')
  end
end
legs_from(first_leg, legs)
answer = legs_answer(legs, late)
if answer then return answer end
local posted = post(late and 'capture_late' or 'capture', legs, late and 'late' or '')
redis.call('HSET', INFERENCE, 'state', 'captured', 'capture', record, 'capture_seq', posted[2],
  'adapter_version', adapter_version)
redis.call('ZREM', HOLDS, inference)
for i = first_job, first_leg - 1 do redis.call('XADD', JOBS, '*', 'job', ARGV[i]) end
for _, leg in ipairs(legs) do
  if string.sub(leg[1], 1, 5) == 'open:' then redis.call('ZADD', POOLS, time_ms, leg[1]) end
end
return posted
