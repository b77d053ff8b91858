-- open: KEYS inc s f sel route...  ARGV inc nonce me conn epoch fence user ttl life number lazy chatmode chat selttl.
-- chatmode: '=' remember chat, '-' forget it, '' leave it alone.
-- Answers 'S INC', 'O', 'L' (lock lower or absent), 'H' (an equal or higher epoch).
local inc = incarnation(ARGV[2])
if inc ~= ARGV[1] then return 'S ' .. inc end
local me, mine = ARGV[3], ARGV[5]
local epoch, conn, settled, owner = lock(redis.call('GET', KEYS[2]))
if owner ~= me or conn ~= ARGV[4] or epoch ~= mine then
  if epoch and tonumber(epoch) >= tonumber(mine) then return 'H' end
  return 'L'
end
if ARGV[6] == '1' then fence(KEYS[3], ARGV[7], mine) end
if settled == '0' then
  redis.call('SET', KEYS[2], '1 ' .. mine .. ' ' .. conn .. ' 1 ' .. me, 'EX', ARGV[8])
end
local now = tonumber(redis.call('TIME')[1])
for i = 5, #KEYS do touch(KEYS[i], me, ARGV[9], ARGV[10], ARGV[11], now) end
if ARGV[12] == '=' then
  -- Mostly it is what was restored; sweeps keep it alive.
  if redis.call('GET', KEYS[4]) ~= ARGV[13] then redis.call('SET', KEYS[4], ARGV[13], 'EX', ARGV[14]) end
elseif ARGV[12] == '-' then
  redis.call('DEL', KEYS[4])
end
return 'O'
