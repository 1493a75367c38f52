-- One gateway's places at one engine, in one step: what it keeps, what it gives back, what it gets.
--
-- KEYS[1]  `<gateway> <adapter>` -> when that lease ends, in ms
-- KEYS[2]  gateway -> until when it counts as waiting, in ms
-- ARGV     gateway, places, lease in ms, waiting in ms, `1` if its requests wait, number of adapters
--          it keeps, these, then those that it wants, the most urgent first
-- Answers  `1` if another gateway waits, then each wanted adapter that it now has a place for.
--
-- A place is an adapter's, not a gateway's: where another gateway has the adapter in flight, a
-- second lease takes no place more.
local me, places = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends, kept = now + tonumber(ARGV[3]), tonumber(ARGV[6])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)

local keeps = {}
for number = 7, 6 + kept do
  keeps[ARGV[number]] = true
  redis.call('ZADD', KEYS[1], ends, me .. ' ' .. ARGV[number])
end
local taken, count = {}, 0
for _, lease in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local gateway, adapter = string.match(lease, '^(%S+) (.+)$')
  if gateway == me and not keeps[adapter] then
    redis.call('ZREM', KEYS[1], lease)
  elseif not taken[adapter] then
    taken[adapter] = true
    count = count + 1
  end
end

local answer, refused = {'0'}, false
for number = 7 + kept, #ARGV do
  local adapter = ARGV[number]
  if not taken[adapter] and count < places then
    taken[adapter] = true
    count = count + 1
  end
  if taken[adapter] then
    redis.call('ZADD', KEYS[1], ends, me .. ' ' .. adapter)
    answer[#answer + 1] = adapter
  else
    refused = true
  end
end

redis.call('ZREM', KEYS[2], me)
if redis.call('ZCARD', KEYS[2]) > 0 then answer[1] = '1' end
if refused and ARGV[5] == '1' then
  redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), me)
end
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]))
redis.call('PEXPIRE', KEYS[2], tonumber(ARGV[4]))
return answer
