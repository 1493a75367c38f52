-- ARGV own: inference, application, held, charge, held - charge, the capture's record,
--   adapter version, time_ms, the number of jobs, the jobs, then the credit and pool legs flat
local CREDITED = {['base:'] = true, ['owner:'] = true, host = true, platform = true}

-- Only these are credited, and the pools of this very inference are opened.
local function check_credits(first_leg, inference)
  local pool = 'open:' .. inference
  for i = first_leg, #ARGV, 2 do
    local account = ARGV[i]
    if not CREDITED[kind_of(account)] and account ~= pool
      and string.sub(account, 1, #pool + 1) ~= pool .. '/' then
      refuse('a capture does not credit ' .. account)
    end
  end
end

return once(function()
  local inference, application, held = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
  local charge, rest, record = ARGV[OWN + 3], ARGV[OWN + 4], ARGV[OWN + 5]
  local adapter_version, time_ms = ARGV[OWN + 6], ARGV[OWN + 7]
  local first_job = OWN + 9
  local first_leg = first_job + tonumber(ARGV[OWN + 8])
  local facts = call('HMGET', FACTS, 'state', 'application', 'held')
  local state = facts[1]
  if not find(time_ms, '^%d+$') then refuse('bad time ' .. time_ms) end
  refuse_forgotten()
  if state ~= 'held' and state ~= 'expired' then
    refuse('capture without hold: the inference is ' .. (state or 'unknown'))
  end
  if facts[2] ~= application or facts[3] ~= held then
    refuse('the capture is not of what was held')
  end
  -- After its hold has expired the charge is taken from the application itself, below its credit
  -- limit if need be: the tokens were served.
  local late = state == 'expired'
  local kind = late and 'capture_late' or 'capture'
  local legs = {}
  if late and charge ~= '0' then
    legs = {'app:' .. application, '-' .. charge, unpack(ARGV, first_leg)}
  elseif not late and rest == '0' then
    legs = {'hold:' .. inference, '-' .. held, unpack(ARGV, first_leg)}
  elseif not late then
    local payer = 'app:' .. application
    legs = {'hold:' .. inference, '-' .. held, payer, rest, unpack(ARGV, first_leg)}
  end
  check(kind, legs, not late and held)
  check_credits(first_leg, inference)
  local posted = post(kind, legs, late and 'late' or '')
  call('HSET', FACTS, 'state', 'captured', 'capture', record, 'captured_ms', time_ms,
    'adapter_version', adapter_version)
  if late then call('HSET', FACTS, 'late', '1') end
  call('ZREM', HOLDS, inference)
  for i = first_job, first_leg - 1 do call('XADD', JOBS, '*', 'job', ARGV[i]) end
  for i = 1, #legs, 2 do
    if string.sub(legs[i], 1, 5) == 'open:' then call('ZADD', POOLS, time_ms, legs[i]) end
  end
  return posted
end)
