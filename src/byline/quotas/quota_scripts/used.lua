-- What counts of one scope's use now: requests, tokens, nano of the day, nano of the month.
-- KEYS 1 clock  2 the scope's use
local use = use_of(KEYS[2], (time_now(KEYS[1])))
return {use.requests, use.tokens, use.nano_per_day, use.nano_per_month}
