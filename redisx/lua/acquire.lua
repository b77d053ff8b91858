-- acquire: KEYS inc e s sel.  ARGV inc nonce me conn reject expect ttl.
-- Answers 'S INC', 'T LOCK' (held by LOCK), or 'A EPOCH[ PREV]\nCHAT'.
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
