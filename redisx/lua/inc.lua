-- inc: KEYS inc e.  ARGV nonce.  Answers 'INC EPOCH', EPOCH the last one issued.
return incarnation(ARGV[1]) .. ' ' .. (redis.call('GET', KEYS[2]) or '0')
