-- Stands before the body of every script here: the time, and what counts of a scope's use.
--
-- A use is kept in slots of one second. It counts until WINDOW more slots have passed, so for 60 to
-- 61 seconds: in no 60 seconds is there ever more than a limit allows. Every number is an integer
-- below 2^53, which Lua's doubles hold exactly.
--
-- A scope's use is one hash: requests, tokens (sums over the slots), first and last (slots),
-- requests:<slot>, tokens:<slot>; day and day_nano, month and month_nano (UTC).
-- The line before this text sets the bounds that are used here.

local call, floor, format = redis.call, math.floor, string.format
local DAY_MS = 86400000

local function digits(number)
  return format('%.0f', number)
end

-- The server's time in milliseconds. It does not go back by less than CLOCK_BACK_MS_MAX: another
-- primary's clock may be a little behind.
local function time_now(clock)
  local time = call('TIME')
  local now = time[1] * 1000 + floor(time[2] / 1000)
  local seen = tonumber(call('GET', clock) or 0)
  if seen > now and seen - now <= CLOCK_BACK_MS_MAX then now = seen end
  return now, now ~= seen
end

-- 202611 for a day (since 1970) in November 2026. (H. Hinnant, civil_from_days.)
local function month_of(day)
  local shifted = day + 719468
  local era = floor(shifted / 146097)
  local in_era = shifted - era * 146097
  local leaps = floor(in_era / 1460) - floor(in_era / 36524) + floor(in_era / 146096)
  local year = floor((in_era - leaps) / 365)
  local in_year = in_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * in_year + 2) / 153) + 3
  if month > 12 then month, year = month - 12, year + 1 end
  return (year + era * 400) * 100 + month
end

-- What of a scope's use counts now. Reads only; `gone` are the fields that count no longer.
local function use_of(key, now)
  local got = call('HMGET', key, 'requests', 'tokens', 'first', 'last',
    'day', 'day_nano', 'month', 'month_nano')
  local slot, day = floor(now / 1000), floor(now / DAY_MS)
  local month = month_of(day)
  local use = {key = key, now = now, slot = slot, day = day, month = month, gone = {}}
  use.requests, use.tokens = tonumber(got[1] or 0), tonumber(got[2] or 0)
  use.nano_per_day = got[5] == digits(day) and tonumber(got[6]) or 0
  use.nano_per_month = got[7] == digits(month) and tonumber(got[8]) or 0
  local first, last = tonumber(got[3]), tonumber(got[4])
  if not last then return use end
  local oldest = slot - WINDOW -- that still counts
  if last > slot then oldest = last + 1 end -- the clock was set back far: begin anew
  for passed = first, math.min(last, oldest - 1) do
    use.gone[#use.gone + 1] = 'requests:' .. digits(passed)
    use.gone[#use.gone + 1] = 'tokens:' .. digits(passed)
  end
  if #use.gone > 0 then
    local amounts = call('HMGET', key, unpack(use.gone))
    for index = 1, #amounts, 2 do
      use.requests = use.requests - (amounts[index] or 0)
      use.tokens = use.tokens - (amounts[index + 1] or 0)
    end
  end
  if oldest <= last then use.first, use.last = math.max(first, oldest), last end
  return use
end
