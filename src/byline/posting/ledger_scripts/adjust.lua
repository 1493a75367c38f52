-- An operator's correction. A hold and an open pool are closed by their inference alone.
-- ARGV own: the decision's text, then the legs flat
return once(function()
  local legs = {unpack(ARGV, OWN + 1)}
  if #legs == 0 then refuse('an adjustment needs legs') end
  for i = 1, #legs, 2 do
    local kind = kind_of(legs[i])
    if kind == 'hold:' or kind == 'open:' then refuse(legs[i] .. ' can not be adjusted') end
  end
  return post_decision('adjust', legs, ARGV[OWN])
end)
