-- Closing the open account is the guard: what is open is settled once, at any age, and wholly.
-- ARGV own: inference, ordinal, open account, pool, adapter version, the attribution's record,
--   then the legs flat
return once(function()
  local ordinal, account, pool = ARGV[OWN + 1], ARGV[OWN + 2], ARGV[OWN + 3]
  local adapter_version, record = ARGV[OWN + 4], ARGV[OWN + 5]
  local attribution, settle_seq = 'attribution:' .. ordinal, 'settle_seq:' .. ordinal
  local facts = call('HMGET', FACTS, 'adapter_version', attribution, settle_seq)
  -- Also when its mark was dropped long ago.
  if facts[2] == record then return answer('duplicate', facts[3]) end
  if facts[2] then refuse('the choice was settled with another attribution', 'conflict') end
  if facts[1] ~= adapter_version then
    refuse('the inference was not answered by ' .. adapter_version)
  end
  for i = OWN + 6, #ARGV, 2 do
    if kind_of(ARGV[i]) ~= 'contrib:' and ARGV[i] ~= 'unattributed:' .. adapter_version then
      refuse('a pool is not closed to ' .. ARGV[i])
    end
  end
  local legs = {account, '-' .. pool, unpack(ARGV, OWN + 6)}
  check('settle', legs, pool)
  local posted = post('settle', legs)
  call('HSET', FACTS, attribution, record, settle_seq, posted[2])
  call('ZREM', POOLS, account)
  return posted
end)
