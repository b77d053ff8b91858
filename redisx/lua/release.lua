-- release: KEYS s f.  ARGV me conn user ttl.  Answers 'O'.
-- An unsettled lock is never given up without a fence: nobody knows that the
-- socket it outranked has ended.
local epoch, conn, settled, owner = lock(redis.call('GET', KEYS[1]))
if owner ~= ARGV[1] or conn ~= ARGV[2] then return 'O' end
if settled == '0' then fence(KEYS[2], ARGV[3], epoch) end
redis.call('SET', KEYS[1], '1 ' .. epoch, 'EX', ARGV[4])
return 'O'
