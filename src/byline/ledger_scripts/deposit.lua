-- ARGV own: account, nano
local answer = event_answer()
if answer then return answer end
local account, nano = ARGV[OWN], ARGV[OWN + 1]
local legs = {{'funding', '-' .. nano}, {account, nano}}
return legs_answer(legs) or post('deposit', legs)
