-- ARGV own: application, nano
return once(function()
  local application, nano = ARGV[OWN], ARGV[OWN + 1]
  local legs = {'funding', '-' .. nano, 'app:' .. application, nano}
  local limit = redis.call('HGET', LIMITS, application)
  check('deposit', legs)
  local posted = post('deposit', legs)
  -- So that `limits` names every application that ever had money, also when all of it is spent.
  if not limit then redis.call('HSET', LIMITS, application, '0') end
  return posted
end)
