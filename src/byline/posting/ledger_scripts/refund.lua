-- Part or all of a charge goes back to the application. Each payee gives its part of what it was
-- credited; what it has no longer, since it was paid out, comes from `refund` clearing.
-- ARGV own: the decision's text, operation, inference, nano, what the parts took as refunded
--   before, then the payees' parts flat: account, nano, ...
local function open_account(inference, ordinal)
  return 'open:' .. inference .. (ordinal > 0 and '/' .. ordinal or '')
end

-- So much of `part` as the account's balance covers.
local function covered(account, part)
  local balance = redis.call('HGET', BALANCES, account) or '0'
  if is_negative(balance) then return 0 end
  return tonumber(is_negative(plus(balance, '-' .. part)) and balance or part)
end

return once(function()
  local manifest, operation, inference = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
  local nano, before = ARGV[OWN + 3], ARGV[OWN + 4]
  local facts = redis.call('HMGET', CONCERNED, 'state', 'application', 'capture', 'refunded')
  local state, application, refunded = facts[1], facts[2], facts[4] or '0'
  if state ~= 'captured' then
    refuse('refund without capture: the inference is ' .. (state or 'unknown'))
  end
  local capture = cjson.decode(facts[3])
  for ordinal = 0, #capture.pools - 1 do
    local account = open_account(inference, ordinal)
    if redis.call('HEXISTS', BALANCES, account) == 1 then refuse(account .. ' is not settled') end
  end
  if tonumber(nano) > capture.charge_nano - refunded then
    refuse('only ' .. plus(string.format('%d', capture.charge_nano), '-' .. refunded)
      .. ' nano-USD of the charge are left')
  end
  if refunded ~= before then refuse('the refunds of the inference changed meanwhile') end
  local legs, short = {'app:' .. application, nano}, 0
  for i = OWN + 5, #ARGV, 2 do
    local account, part = ARGV[i], ARGV[i + 1]
    if not string.find(part, '^[1-9]%d*$') then refuse('bad amount ' .. part) end
    local taken = covered(account, part)
    if taken > 0 then
      legs[#legs + 1] = account
      legs[#legs + 1] = string.format('-%d', taken)
    end
    short = short + part - taken
  end
  if short > 0 then
    legs[#legs + 1] = 'refund'
    legs[#legs + 1] = string.format('-%d', short)
  end
  local posted = post_decision('refund', legs, manifest)
  redis.call('HSET', CONCERNED, 'refunded', plus(refunded, nano), 'refund:' .. operation, manifest)
  return posted
end)
