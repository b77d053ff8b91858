-- joinall: KEYS inc route...  ARGV inc nonce me life number.
-- Answers 'S INC' or 'O'. Owners that let their edges expire are cleared here,
-- so that a busy route doesn't keep those of every pod that ever was.
local inc = incarnation(ARGV[2])
if inc ~= ARGV[1] then return 'S ' .. inc end
local now = tonumber(redis.call('TIME')[1])
local gone = string.format('%.0f', now)
for i = 2, #KEYS do
  join(KEYS[i], ARGV[3], ARGV[4], ARGV[5], now)
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', gone)
end
return 'O'
