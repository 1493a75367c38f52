-- Whole cents leave a payee's account, unless its payouts are held back. Each payout begins where
-- the one before it ended: two that were drawn up at the same moment can't pay the same lines.
-- ARGV own: the decision's text, account, nano, the first and the last entry whose lines it pays
--   (none where the first is behind the last), what the payout before it left, what it leaves
local PAYEES = {['contrib:'] = true, ['owner:'] = true, ['base:'] = true, host = true,
  platform = true}
return once(function()
  local manifest, account, nano = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
  local first_seq, last_seq = ARGV[OWN + 3], ARGV[OWN + 4]
  local opening, remainder = ARGV[OWN + 5], ARGV[OWN + 6]
  if not PAYEES[kind_of(account)] then refuse(account .. ' is not paid out') end
  if is_negative(nano) or nano % CENT_NANO ~= 0 then refuse('a payout is of whole cents') end
  local reason = redis.call('HGET', BLOCKED, account)
  if reason then refuse('the payouts of ' .. account .. ' are held back: ' .. reason) end
  local paid = last_seq .. ':' .. remainder
  local lines = first_seq .. '-' .. paid
  if not find(lines, '^%d+%-%d+:%-?%d+$') or first_seq - last_seq > 1 then
    refuse('it can not pay lines ' .. first_seq .. ' to ' .. last_seq .. ', leaving ' .. remainder)
  end
  local paid_seq, left = string.match(call('HGET', PAID, account) or '', '^(%d+):(%-?%d+)$')
  paid_seq = tonumber(paid_seq or '0')
  if tonumber(first_seq) <= paid_seq then
    refuse('its lines were paid before, up to entry ' .. format('%d', paid_seq))
  end
  if first_seq - paid_seq ~= 1 then
    refuse('its lines were paid up to entry ' .. format('%d', paid_seq) .. ', not to the one before '
      .. first_seq)
  end
  if tonumber(last_seq) > tonumber(journal_end) then
    refuse('the journal has no entry ' .. last_seq)
  end
  if left and left ~= opening then
    refuse('another payout came before it, which left ' .. left .. ' nano-USD, not ' .. opening)
  end
  local posted = post_decision('payout', {account, '-' .. nano, 'payout', nano}, manifest)
  call('HSET', PAID, account, paid)
  return posted
end)
