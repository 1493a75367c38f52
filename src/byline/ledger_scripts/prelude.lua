-- Stands before the body of every posting script: all checks, then the writes.
-- Redis does not roll a script back, so every check comes before the first write, and the writes
-- can't fail: types, digits and the journal's end have been looked at.
--
-- KEYS 1 marks (hash)      2 balances (hash)  3 journal (stream)  4 meta (hash)  5 limits (hash)
--      6 inference (hash)  7 holds (zset)     8 pools (zset)      9 jobs (stream)
--      10.. earnings lines (lists), for settle alone
-- ARGV 1 event key  2 payload digest  3 writer's epoch  4-7 the entry's text around kind, legs, seq
--      8.. the operation's own
-- The answer is {status, seq or reason, flag}; status: posted, duplicate, nothing, or a refusal.
-- LEG_DIGITS_MAX, LEGS_MAX, BALANCE_HIGH_MAX and LINES_MAX are set by the line before this text.

local MARKS, BALANCES, JOURNAL, META, LIMITS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local INFERENCE, HOLDS, POOLS, JOBS = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local BILLION = 1000000000
local OWN = 8 -- the first argument that is the operation's own

local function refused(reason)
  return {'refused', reason}
end

local last_seq -- of the journal; known once event_answer has let the event pass

local function wrong_type()
  local expected = {'hash', 'hash', 'stream', 'hash', 'hash', 'hash', 'zset', 'zset', 'stream'}
  for i, key in ipairs(KEYS) do
    local found = redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= (expected[i] or 'list') then return key end
  end
end

-- Has the event been posted already, and may this writer post at all?
local function event_answer()
  local key = wrong_type()
  if key then return refused(key .. ' has the wrong type') end
  local mark = redis.call('HGET', MARKS, ARGV[1])
  if mark then
    local seq, digest, flag = string.match(mark, '^(%d+):(%x+):(%a*)$')
    if digest == ARGV[2] then return {'duplicate', seq, flag} end
    return {'conflict', 'another payload was posted under ' .. ARGV[1]}
  end
  local epoch = redis.call('HGET', META, 'epoch')
  if epoch ~= ARGV[3] then
    return {'fenced', 'the epoch is ' .. tostring(epoch) .. ', the writer has ' .. ARGV[3]}
  end
  local frozen = redis.call('HGET', META, 'frozen')
  if frozen then return {'frozen', frozen} end
  local newest = redis.call('XREVRANGE', JOURNAL, '+', '-', 'COUNT', 1)[1]
  last_seq = redis.call('HGET', META, 'seq') or '0'
  if (newest and newest[1] or '0-1') ~= last_seq .. '-1' then
    return refused('the journal does not end where meta says')
  end
end

-- A decimal string as high * 10^9 + low. Lua's numbers are doubles: both halves stay exact where
-- the whole, up to 10^18, would not.
local function halves(text)
  local sign, digits = string.match(text, '^(%-?)(%d+)$')
  local high = tonumber(string.sub(digits, 1, -10)) or 0
  local low = tonumber(string.sub(digits, -9))
  if sign == '-' then return -high, -low end
  return high, low
end

-- The sum of decimal strings in halves with 0 <= low < 10^9: it is negative just when high is.
local function sum_of(...)
  local high, low = 0, 0
  for _, text in ipairs({...}) do
    local more_high, more_low = halves(text)
    high, low = high + more_high, low + more_low
  end
  local carry = math.floor(low / BILLION)
  return high + carry, low - carry * BILLION
end

local MAY_BE_NEGATIVE = {funding = true, payout = true, refund = true}

-- May `account` go from `balance` by `nano`? Only what leaves an account can be too much.
local function balance_answer(account, balance, nano, overdraft)
  if not string.match(balance, '^%-?%d+$') then return refused(account .. ' holds no integer') end
  local high, low = sum_of(balance, nano)
  if high >= BALANCE_HIGH_MAX or high < -BALANCE_HIGH_MAX
    or (high == -BALANCE_HIGH_MAX and low == 0) then
    return refused(account .. ' would hold too many digits')
  end
  if high >= 0 or string.sub(nano, 1, 1) ~= '-' or MAY_BE_NEGATIVE[account] then return nil end
  local application = string.match(account, '^app:(.+)$')
  if not application then return refused(account .. ' would fall below zero') end
  local limit = redis.call('HGET', LIMITS, application) or '0'
  if not overdraft and sum_of(balance, nano, limit) < 0 then
    return {'funds', account .. ' would fall below its credit limit of ' .. limit .. ' nano-USD'}
  end
end

-- Are these legs ({account, nano} each) an entry that may be posted?
local function legs_answer(legs, overdraft)
  if #legs > LEGS_MAX then return refused('more legs than ' .. LEGS_MAX) end
  local sum, accounts, seen = 0, {}, {}
  for i, leg in ipairs(legs) do
    local digits = string.match(leg[2], '^%-?([1-9]%d*)$')
    if not digits or #digits > LEG_DIGITS_MAX then return refused('bad amount ' .. leg[2]) end
    if seen[leg[1]] then return refused('two legs of ' .. leg[1]) end
    sum, accounts[i], seen[leg[1]] = sum + tonumber(leg[2]), leg[1], true
  end
  if sum ~= 0 then return refused('the legs do not sum to zero') end
  if #legs == 0 then return nil end
  local balances = redis.call('HMGET', BALANCES, unpack(accounts))
  for i, leg in ipairs(legs) do
    local answer = balance_answer(leg[1], balances[i] or '0', leg[2], overdraft)
    if answer then return answer end
  end
end

-- Write the entry, the balances and the mark. Nothing in here can fail any more.
local function post(kind, legs, flag)
  local seq = string.format('%.0f', tonumber(last_seq) + 1)
  local texts = {}
  for i, leg in ipairs(legs) do texts[i] = '["' .. leg[1] .. '","' .. leg[2] .. '"]' end
  local entry = ARGV[4] .. kind .. ARGV[5] .. '[' .. table.concat(texts, ',') .. ']'
    .. ARGV[6] .. seq .. ARGV[7]
  redis.call('XADD', JOURNAL, seq .. '-1', 'e', entry)
  redis.call('HSET', META, 'seq', seq)
  for _, leg in ipairs(legs) do
    -- The reply is a double, but only zero is zero.
    if redis.call('HINCRBY', BALANCES, leg[1], leg[2]) == 0 then
      redis.call('HDEL', BALANCES, leg[1])
    end
  end
  redis.call('HSET', MARKS, ARGV[1], seq .. ':' .. ARGV[2] .. ':' .. (flag or ''))
  return {'posted', seq, flag or ''}
end

-- The legs that stand flat in ARGV from `first` on.
local function legs_from(first, legs)
  for i = first, #ARGV, 2 do legs[#legs + 1] = {ARGV[i], ARGV[i + 1]} end
  return legs
end
