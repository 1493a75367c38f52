-- Takes what one inference may use from every limit that concerns it: all of them or none.
--
-- KEYS 1 limits  2 clock  3 open reservations (zset)  4 this reservation, then the use of each scope
-- ARGV 1 inference  2 application  3 tokens  4 nano  5 how long it is kept, in ms, then each scope
-- Answers {status, inference, ...}: unlimited; closed (it was corrected before it came); admitted
-- and the two windows; refused, the two windows, then limit's name, scope, limit, used, wanted and
-- after how many ms it would fit (-1: never). A window is limit (-1: none), remaining, reset in ms.

local LIMIT_NAMES = {'requests_per_minute', 'tokens_per_minute', 'nano_per_day', 'nano_per_month'}
local MEASURES = {'requests', 'tokens', 'nano_per_day', 'nano_per_month'}
local INFERENCE, TOKENS, NANO = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local WANTED = {1, TOKENS, NANO, NANO}
local FIRST_SCOPE, FIRST_USE = 6, 5

local fields = {}
for place = FIRST_SCOPE, #ARGV do
  for _, name in ipairs(LIMIT_NAMES) do fields[#fields + 1] = ARGV[place] .. ' ' .. name end
end
local found = call('HMGET', KEYS[1], unpack(fields))
local limited = {} -- scope's name, its key, its limits by number
for place = FIRST_SCOPE, #ARGV do
  local scope = {name = ARGV[place], key = KEYS[FIRST_USE + place - FIRST_SCOPE]}
  for number = 1, #LIMIT_NAMES do
    local given = found[(place - FIRST_SCOPE) * #LIMIT_NAMES + number]
    scope[number] = tonumber(given)
    if given and not scope[number] then error('a limit of ' .. scope.name .. ' is no number') end
    scope.is_limited = scope.is_limited or scope[number] ~= nil
  end
  if scope.is_limited then limited[#limited + 1] = scope end
end
if #limited == 0 then return {'unlimited', INFERENCE} end

local state = call('HGET', KEYS[4], 'state')
if state == 'closed' then return {'closed', INFERENCE} end
local is_repeated = state == 'open' -- it has been taken: nothing more is
call('ZCARD', KEYS[3]) -- fails on a wrong type before the first write
local now, is_later = time_now(KEYS[2])

local function wait_in_window(use, measure, excess)
  local slots = {}
  for slot = use.first, use.last do slots[#slots + 1] = measure .. ':' .. digits(slot) end
  for place, amount in ipairs(call('HMGET', use.key, unpack(slots))) do
    excess = excess - (amount or 0)
    if excess <= 0 then return (use.first + place + WINDOW) * 1000 - use.now end
  end
  return (WINDOW + 1) * 1000
end

local function wait_for_next(use, number)
  local day = use.day + 1
  if number == 4 then
    while month_of(day) == use.month do day = day + 1 end
  end
  return day * DAY_MS - use.now
end

local refusal -- the limit that takes longest
local windows = {{-1, 0, 0}, {-1, 0, 0}} -- of the scope with the least left, as it is now
for _, scope in ipairs(limited) do
  local use = use_of(scope.key, now)
  scope.use = use
  for number, measure in ipairs(MEASURES) do
    local limit, used, wanted = scope[number], use[measure], WANTED[number]
    if limit and not is_repeated and used + wanted > limit then
      local wait
      if wanted > limit then wait = -1
      elseif number > 2 then wait = wait_for_next(use, number)
      else wait = wait_in_window(use, measure, used + wanted - limit) end
      if not refusal or (refusal[6] >= 0 and (wait < 0 or wait > refusal[6])) then
        refusal = {LIMIT_NAMES[number], scope.name, limit, used, wanted, wait}
      end
    end
    local window = windows[number]
    if window and limit and (window[1] < 0 or limit - used < window[2]) then
      local reset = used > 0 and (use.last + WINDOW + 1) * 1000 - now or 0
      windows[number] = {limit, limit - used, reset}
    end
  end
end

local function answer(status, more)
  local parts = {status, INFERENCE}
  for number, window in ipairs(windows) do
    local limit, remaining, reset = window[1], window[2], window[3]
    if status == 'admitted' and not is_repeated and limit >= 0 then
      remaining, reset = remaining - WANTED[number], (floor(now / 1000) + WINDOW + 1) * 1000 - now
    end
    parts[#parts + 1] = limit
    parts[#parts + 1] = math.max(remaining, 0)
    parts[#parts + 1] = reset
  end
  for _, part in ipairs(more or {}) do parts[#parts + 1] = part end
  return parts
end

if refusal then return answer('refused', refusal) end
if is_repeated then return answer('admitted') end

local names = {}
for _, scope in ipairs(limited) do
  local use, slot = scope.use, digits(scope.use.slot)
  names[#names + 1] = scope.name
  if #use.gone > 0 then call('HDEL', use.key, unpack(use.gone)) end
  call('HSET', use.key,
    'requests', digits(use.requests + 1), 'tokens', digits(use.tokens + TOKENS),
    'first', digits(use.first or use.slot), 'last', slot,
    'day', digits(use.day), 'day_nano', digits(use.nano_per_day + NANO),
    'month', digits(use.month), 'month_nano', digits(use.nano_per_month + NANO))
  call('HINCRBY', use.key, 'requests:' .. slot, 1)
  call('HINCRBY', use.key, 'tokens:' .. slot, digits(TOKENS))
  call('PEXPIRE', use.key, USE_KEPT_MS)
end
local use = limited[1].use
call('HSET', KEYS[4], 'state', 'open', 'application', ARGV[2], 'scopes', table.concat(names, ' '),
  'requests', 1, 'tokens', digits(TOKENS), 'nano', digits(NANO),
  'slot', digits(use.slot), 'day', digits(use.day), 'month', digits(use.month))
call('ZADD', KEYS[3], digits(now + ARGV[5]), INFERENCE)
if is_later then call('SET', KEYS[2], digits(now)) end
return answer('admitted')
