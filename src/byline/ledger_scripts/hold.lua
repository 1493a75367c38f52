-- ARGV own: inference, application, nano, expires_ms
local answer = event_answer()
if answer then return answer end
local inference, application, nano = ARGV[OWN], ARGV[OWN + 1], ARGV[OWN + 2]
local expires_ms = ARGV[OWN + 3]
if redis.call('EXISTS', INFERENCE) == 1 then return refused('the inference was held before') end
local legs = {{'app:' .. application, '-' .. nano}, {'hold:' .. inference, nano}}
answer = legs_answer(legs)
if answer then return answer end
local posted = post('hold', legs)
redis.call('HSET', INFERENCE, 'state', 'held', 'application', application, 'held', nano,
  'expires_ms', expires_ms)
redis.call('ZADD', HOLDS, expires_ms, inference)
return posted
