-- Puts what an inference has used in the place of what was taken for it. Repeated, it does nothing.
--
-- KEYS 1 clock  2 open reservations (zset)  3 this reservation, then the use of each scope
-- ARGV 1 inference  2 requests  3 tokens  4 nano  5 for how many ms more the reservation is kept
--      open, to be corrected once more (0: it is closed), then each scope
-- Answers {corrected | nothing, inference}.

local INFERENCE, KEEP_MS = ARGV[1], tonumber(ARGV[5])
local FIRST_SCOPE, FIRST_USE = 6, 4

local function close()
  call('DEL', KEYS[3])
  call('HSET', KEYS[3], 'state', 'closed') -- what was sent before this and comes later takes nothing
  call('PEXPIRE', KEYS[3], CLOSED_KEPT_MS)
  call('ZREM', KEYS[2], INFERENCE)
end

local got = call('HMGET', KEYS[3], 'state', 'scopes', 'requests', 'tokens', 'nano',
  'slot', 'day', 'month')
call('ZCARD', KEYS[2]) -- fails on a wrong type before the first write
if got[1] ~= 'open' then
  if not got[1] then close() end
  return {'nothing', INFERENCE}
end

local scopes, slot = ' ' .. got[2] .. ' ', tonumber(got[6])
local changes = {requests = ARGV[2] - got[3], tokens = ARGV[3] - got[4]}
local nano = ARGV[4] - got[5]
local now = time_now(KEYS[1])

local function correct(key)
  local use = call('HMGET', key, 'first', 'last', 'day', 'month')
  if not use[2] then return end
  if tonumber(use[1]) <= slot and slot <= tonumber(use[2]) then
    for measure, change in pairs(changes) do
      local field = measure .. ':' .. got[6]
      local there = tonumber(call('HGET', key, field) or 0)
      change = math.max(change, -there) -- after a clock that was set back it may be gone
      if change ~= 0 then
        call('HINCRBY', key, field, digits(change))
        call('HINCRBY', key, measure, digits(change))
      end
    end
  end
  if use[3] == got[7] then call('HINCRBY', key, 'day_nano', digits(nano)) end
  if use[4] == got[8] then call('HINCRBY', key, 'month_nano', digits(nano)) end
end

for place = FIRST_SCOPE, #ARGV do
  if string.find(scopes, ' ' .. ARGV[place] .. ' ', 1, true) then
    correct(KEYS[FIRST_USE + place - FIRST_SCOPE])
  end
end
if KEEP_MS == 0 then
  close()
else
  call('HSET', KEYS[3], 'requests', ARGV[2], 'tokens', ARGV[3], 'nano', ARGV[4], 'looked', 1)
  call('ZADD', KEYS[2], digits(now + KEEP_MS), INFERENCE)
end
return {'corrected', INFERENCE}
