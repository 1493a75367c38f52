-- Whole cents leave a payee's account, unless its payouts are held back.
-- ARGV own: the decision's text, account, nano
local PAYEES = {['contrib:'] = true, ['owner:'] = true, ['base:'] = true, host = true,
  platform = true}
return once(function()
  local manifest, account, nano = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
  if not PAYEES[kind_of(account)] then refuse(account .. ' is not paid out') end
  if is_negative(nano) or nano % CENT_NANO ~= 0 then refuse('a payout is of whole cents') end
  local reason = redis.call('HGET', BLOCKED, account)
  if reason then refuse('the payouts of ' .. account .. ' are held back: ' .. reason) end
  return post_decision('payout', {account, '-' .. nano, 'payout', nano}, manifest)
end)
