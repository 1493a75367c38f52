-- Stands before the body of every posting script. A body is `return once(function() ... end)`: it
-- reads and refuses, checks the legs, posts, and then writes what it alone knows of.
--
-- One call posts several events of one operation, in turn, each for itself: an event that is refused
-- or fails leaves its neighbours alone. So they share what a call costs and what is read once.
--
-- Redis does not roll a script back, so nothing may be refused and nothing may fail after an event's
-- first write. Each key that is written has been read before, which fails where its type is wrong;
-- every number has had its digits counted; XADD, the one write that looks at what is there, comes
-- first.
--
-- KEYS 1 balances (hash)  2 journal (stream)  3 meta (hash)     4 limits (hash)  5 holds (zset)
--      6 pools (zset)     7 jobs (stream)     8 blocked (hash)  9 paid (hash)
--      then of each event: its marks (hash), the facts of its inference or operation (hash) and, of
--      a refund, the facts of the inference that it is of
-- ARGV 1 writer's epoch  2 the number of events, then of each how many arguments it has, and these:
--      1 event key  2 payload digest  3-6 the entry's text around kind, legs, seq
--      7.. the operation's own
-- The answer is a list with one {status, seq or reason, flag, event key} for each event; status:
-- posted, duplicate, nothing, or a refusal; `damaged` where what is stored is not as it must be, which
-- is no fault of the event's: it is sent again when that is mended. By the key a client knows that the answer is its own.
-- The line before this text sets LEG_NANO_MAX, LEGS_PER_ENTRY_MAX, BALANCE_DIGITS_MAX,
-- CONTRIBUTOR_DEBT_NANO_MAX and CENT_NANO.

local KEYS, GIVEN = KEYS, ARGV -- what is looked up once is not looked up again
local call, find, format = redis.call, string.find, string.format
local BALANCES, JOURNAL, META, LIMITS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local HOLDS, POOLS, JOBS, BLOCKED, PAID = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local SHARED_KEYS = 9
local EPOCH, EVENTS = GIVEN[1], tonumber(GIVEN[2])
local OWN = 7 -- the first argument that is the operation's own
local BILLION = 1000000000
local EXACT_DIGITS = 15 -- Lua's numbers are doubles: so many digits they always hold

local ARGV, MARKS, FACTS, CONCERNED -- of the event whose turn it is
local journal_end -- the newest entry's number; known once events may be posted
local newest -- the number of the newest entry that this call wrote; `meta` has it at the call's end
local forgotten_ms -- events as old as that may have been forgotten, their marks and facts gone
local kept, n_kept, emptied -- what the checked legs make of the balances
local has_written = false

local function answer(status, text, flag)
  return {status, text, flag or '', ARGV[1]}
end

-- Ends the script with a refusal: `once` catches it.
local function refuse(reason, status)
  error(answer(status or 'refused', reason))
end

-- May this writer post at all? Notes where the journal ends; asked once a call.
local function check_meta()
  local meta = call('HMGET', META, 'epoch', 'frozen', 'seq', 'trimmed', 'forgotten_ms')
  local epoch, frozen, seq, trimmed = meta[1], meta[2], meta[3] or '0', meta[4] or '0'
  if epoch ~= EPOCH then
    refuse('the epoch is ' .. tostring(epoch) .. ', the writer has ' .. EPOCH, 'fenced')
  end
  if frozen then refuse(frozen, 'frozen') end
  -- Cheaper than to read the newest entry; that its number is no higher is seen by XADD.
  if call('XLEN', JOURNAL) ~= seq - trimmed then
    refuse('the journal does not end where meta says', 'damaged')
  end
  call('ZCARD', HOLDS) -- of the right type, like the two that follow
  call('ZCARD', POOLS)
  call('XLEN', JOBS)
  journal_end = seq
  forgotten_ms = meta[5] or '0'
end

-- Has the event been posted already? If not, it may be posted now.
local function check_event()
  local mark = call('HGET', MARKS, ARGV[1])
  if mark then
    local seq, digest, flag = string.match(mark, '^(%d+):(%x+):(%a*)$')
    if digest == ARGV[2] then error(answer('duplicate', seq, flag)) end
    refuse('another payload was posted under ' .. ARGV[1], 'conflict')
  end
  if not journal_end then check_meta() end
end

-- Refuse an event that would not be known again: its own time, in its UUIDv7, says so.
local function refuse_forgotten()
  local digits = string.sub(ARGV[1], 1, 8) .. string.sub(ARGV[1], 10, 13)
  if tonumber(digits, 16) <= tonumber(forgotten_ms) then
    refuse(ARGV[1] .. ' is too old: events of its time are forgotten')
  end
end

-- The sum of two decimal strings of at most 18 digits each, as such a string.
local function plus(one, other)
  if #one <= EXACT_DIGITS and #other <= EXACT_DIGITS then return format('%d', one + other) end

  -- A decimal string as high * 10^9 + low.
  local function halves(text)
    local sign, digits = string.match(text, '^(%-?)(%d+)$')
    local high = tonumber(string.sub(digits, 1, -10)) or 0
    local low = tonumber(string.sub(digits, -9))
    if sign == '-' then return -high, -low end
    return high, low
  end

  local high, low = halves(one)
  local other_high, other_low = halves(other)
  high, low = high + other_high, low + other_low
  local carry = math.floor(low / BILLION)
  high, low = high + carry, low - carry * BILLION -- now low >= 0: the sum is negative as high is
  local sign = ''
  if high < 0 then
    sign = '-'
    if low == 0 then high = -high else high, low = -high - 1, BILLION - low end
  end
  if high == 0 then return sign .. format('%d', low) end
  return sign .. format('%d%09d', high, low)
end

local function is_negative(text)
  return string.byte(text) == 45
end

-- An account's name up to its colon, colon and all; the whole name where it has none.
local function kind_of(account)
  return string.match(account, '^[^:]*:?')
end

-- May `account` fall to `balance`, which is below zero, by an entry of this kind?
local function check_debt(entry_kind, account, balance)
  local no_bound = string.rep('9', BALANCE_DIGITS_MAX)
  -- How far an account may fall below zero, by its kind; behind the kind of an entry, by that entry
  -- alone. What is not here never falls below zero.
  local debt_max = {
    funding = no_bound, payout = no_bound, refund = no_bound, -- clearing, towards the world outside
    ['app:'] = 'its credit limit',
    ['capture_late app:'] = no_bound, -- the tokens were served
    ['adjust contrib:'] = format('%d', CONTRIBUTOR_DEBT_NANO_MAX), -- what was paid wrongly
    ['adjust unattributed:'] = format('%d', CONTRIBUTOR_DEBT_NANO_MAX), -- what an audit owes, times 1/p
  }
  local kind = kind_of(account)
  local most = debt_max[entry_kind .. ' ' .. kind] or debt_max[kind]
  if not most then refuse(account .. ' would fall below zero') end
  if most == 'its credit limit' then
    local limit = call('HGET', LIMITS, string.sub(account, #kind + 1)) or '0'
    if not is_negative(plus(balance, limit)) then return end
    refuse(account .. ' would fall below its credit limit of ' .. limit .. ' nano-USD', 'funds')
  end
  if is_negative(plus(balance, most)) then
    refuse(account .. ' would fall below -' .. most .. ' nano-USD')
  end
end

-- What `account` holds after `amount` (`nano` as a number) has come to its `balance`.
local function balance_after(account, balance, amount, nano)
  if not find(balance, '^%-?%d+$') then refuse(account .. ' holds no integer') end
  if #balance <= EXACT_DIGITS then return format('%d', balance + nano) end
  local after = plus(balance, amount)
  if #string.match(after, '%d+') > BALANCE_DIGITS_MAX then
    refuse(account .. ' would hold too many digits')
  end
  return after
end

-- Refuse what is no entry that may be posted; notes what it makes of the balances. `legs` is flat:
-- account, amount, account, amount, ... The first account must hold exactly `closed`, if given.
local function check(entry_kind, legs, closed)
  if #legs > 2 * LEGS_PER_ENTRY_MAX then refuse('more legs than ' .. LEGS_PER_ENTRY_MAX) end
  -- Tables that begin with some room grow less often.
  local accounts, nanos = {nil, nil, nil, nil, nil, nil, nil, nil}, {nil, nil, nil, nil, nil, nil}
  local sum, n, seen = 0, 0, {}
  for i = 1, #legs, 2 do
    local account, amount = legs[i], legs[i + 1]
    local nano = find(amount, '^%-?[1-9]%d*$') and amount + 0
    if not nano or nano > LEG_NANO_MAX or nano < -LEG_NANO_MAX then
      refuse('bad amount ' .. amount)
    end
    if seen[account] then refuse('two legs of ' .. account) end
    seen[account] = true
    sum, n = sum + nano, n + 1
    accounts[n], nanos[n] = account, nano
  end
  if sum ~= 0 then refuse('the legs do not sum to zero') end
  kept, n_kept, emptied = {nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil}, 0, {}
  if n == 0 then return end
  local balances = call('HMGET', BALANCES, unpack(accounts, 1, n))
  if closed and balances[1] ~= closed then refuse(accounts[1] .. ' does not hold ' .. closed) end
  for i = 1, n do
    local account, nano, after = accounts[i], nanos[i], legs[2 * i]
    if balances[i] then after = balance_after(account, balances[i], after, nano) end
    -- Only what leaves an account can be too much.
    if nano < 0 and is_negative(after) then check_debt(entry_kind, account, after) end
    if after == '0' then
      emptied[#emptied + 1] = account
    else
      kept[n_kept + 1], kept[n_kept + 2] = account, after
      n_kept = n_kept + 2
    end
  end
end

-- Write the entry of the checked legs, the balances and the mark.
local function post(entry_kind, legs, flag)
  local seq = format('%d', journal_end + 1)
  local texts, n = {nil, nil, nil, nil, nil, nil, nil, nil}, 0
  for i = 1, #legs, 2 do
    n = n + 1
    texts[n] = '["' .. legs[i] .. '","' .. legs[i + 1] .. '"]'
  end
  local text = ARGV[3] .. entry_kind .. ARGV[4] .. '[' .. table.concat(texts, ',') .. ']'
    .. ARGV[5] .. seq .. ARGV[6]
  call('XADD', JOURNAL, seq .. '-1', 'e', text)
  has_written, journal_end, newest = true, seq, seq
  if n_kept > 0 then call('HSET', BALANCES, unpack(kept, 1, n_kept)) end
  if #emptied > 0 then call('HDEL', BALANCES, unpack(emptied)) end
  call('HSET', MARKS, ARGV[1], seq .. ':' .. ARGV[2] .. ':' .. (flag or ''))
  return answer('posted', seq, flag)
end

-- Check and post what an operator decided, and keep the decision's text. Its id is used only once.
local function post_decision(entry_kind, legs, manifest)
  if call('HLEN', FACTS) > 0 then refuse("the operation's id was used before") end
  check(entry_kind, legs)
  local posted = post(entry_kind, legs)
  call('HSET', FACTS, 'manifest', manifest)
  return posted
end

-- What a failure means that was no refusal of ours. While nothing is written, a key of the wrong
-- type, a journal that goes on behind its end and values without sense are damage. All else, such as
-- a full memory, is the server's trouble and stays its error.
local function failure(problem)
  local text = problem.err or problem

  -- The key whose type is not what it must be.
  local function wrong_key()
    local types = {[JOURNAL] = 'stream', [JOBS] = 'stream', [HOLDS] = 'zset', [POOLS] = 'zset'}
    for _, key in ipairs(KEYS) do
      local found = call('TYPE', key).ok
      if found ~= 'none' and found ~= (types[key] or 'hash') then return key end
    end
  end

  if not has_written then
    if find(text, 'WRONGTYPE', 1, true) then
      return answer('damaged', wrong_key() .. ' has the wrong type')
    end
    if find(text, 'equal or smaller', 1, true) then
      return answer('damaged', 'the journal does not end where meta says')
    end
    if find(text, '^user_script:') or find(text, '^ERR ') then
      return answer('damaged', text)
    end
  end
  return {err = text}
end

-- Answer each event: as before where it has been posted, else by what the operation does.
local function once(operation)
  local answers, n_keys, first = {}, (#KEYS - SHARED_KEYS) / EVENTS, 4
  local last

  local function whole()
    ARGV = {unpack(GIVEN, first, last)}
    check_event()
    return operation()
  end

  for event = 1, EVENTS do
    local key = SHARED_KEYS + (event - 1) * n_keys
    MARKS, FACTS, CONCERNED = KEYS[key + 1], KEYS[key + 2], n_keys > 2 and KEYS[key + 3]
    last = first + GIVEN[first - 1] - 1
    has_written = false
    local done, given = pcall(whole)
    first = last + 2
    answers[event] = (done or given[1]) and given or failure(given)
  end
  if newest then call('HSET', META, 'seq', newest) end
  return answers
end
