-- beat: KEYS pods rev_version.  ARGV member lease former.  A lease of 0 ms leaves
-- the list; former is what the same pod may stand there as, and no longer does.
-- Answers lines: VERSION; a member a line.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
redis.call('ZREM', KEYS[1], ARGV[3])
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
local out = redis.call('ZRANGE', KEYS[1], 0, -1)
table.insert(out, 1, redis.call('GET', KEYS[2]) or '0')
return table.concat(out, '\n')
