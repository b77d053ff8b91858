-- acquire: KEYS inc e s sel t.  ARGV inc nonce me conn reject expect ttl takeovers.
-- Answers 'S INC', 'T LOCK' (held by LOCK), 'R MS' (taken over too often, for so
-- long), or 'A EPOCH[ PREV]\nCHAT'.
local inc = incarnation(ARGV[2])
if inc ~= ARGV[1] then return 'S ' .. inc end
local me, conn = ARGV[3], ARGV[4]
local epoch, c, settled, owner, prev = lock(redis.call('GET', KEYS[3]))
if owner == me and c == conn then -- the answer was lost
  if prev ~= '' then epoch = epoch .. ' ' .. prev end
  return 'A ' .. epoch .. '\n' .. (redis.call('GET', KEYS[4]) or '')
end
if owner and ARGV[5] == '1' and epoch ~= ARGV[6] then
  return 'T ' .. epoch .. ' ' .. c .. ' ' .. settled .. ' ' .. owner
end
if owner then -- somebody else's login ends: so many a minute, from the first on
  local n = redis.call('INCR', KEYS[5])
  if n == 1 then redis.call('PEXPIRE', KEYS[5], 60000) end
  if n > tonumber(ARGV[8]) then return 'R ' .. redis.call('PTTL', KEYS[5]) end
end
local t = redis.call('TIME')
local e = string.format('%.0f', math.max(
  tonumber(epoch or '0') + 1,
  tonumber(redis.call('GET', KEYS[2]) or '0') + 1,
  tonumber(t[1]) * 1000000 + tonumber(t[2])))
redis.call('SET', KEYS[2], e)
local before = ''
if not owner then
  settled = '1'
elseif owner ~= me then
  -- Two statements: miniredis's Lua assigns the first before it reads the second.
  before = ' ' .. epoch .. ' ' .. c .. ' ' .. settled .. ' ' .. owner
  settled = '0'
elseif settled == '0' then -- our own, and whom it outranked is still unconfirmed
  before = ' ' .. prev
end
redis.call('SET', KEYS[3], '1 ' .. e .. ' ' .. conn .. ' ' .. settled .. ' ' .. me .. before, 'EX', ARGV[7])
return 'A ' .. e .. before .. '\n' .. (redis.call('GET', KEYS[4]) or '')
