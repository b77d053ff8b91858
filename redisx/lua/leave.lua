-- leave: KEYS route.  ARGV me number.  Answers 'O'.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and not newer(score, ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 'O'
