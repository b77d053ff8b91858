-- bump: KEYS inc.  ARGV old new.  Another incarnation, unless somebody was first.
local inc = redis.call('GET', KEYS[1])
if inc == ARGV[1] then
  inc = ARGV[2]
  redis.call('SET', KEYS[1], inc)
end
return inc or ''
