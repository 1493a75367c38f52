-- What nobody was shown to deserve goes to those whom a published decision names.
-- ARGV own: the decision's text, adapter version, sum of the credits, then the credits flat
local NAMED = {['contrib:'] = true, ['owner:'] = true, ['base:'] = true, ['app:'] = true}
return once(function()
  local manifest, adapter_version, sum = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
  local legs = {'unattributed:' .. adapter_version, '-' .. sum, unpack(ARGV, OWN + 3)}
  for i = 3, #legs, 2 do
    if not NAMED[kind_of(legs[i])] then refuse('nothing is released to ' .. legs[i]) end
    if is_negative(legs[i + 1]) then refuse('a release takes nothing from ' .. legs[i]) end
  end
  return post_decision('release', legs, manifest)
end)
