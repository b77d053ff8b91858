-- lookup: KEYS inc, routes, fences.  ARGV nonce, number of routes.
-- Answers lines: INC; 'OWNER OWNER' a route; 'I USER EPOCH WRITTEN USER ...' for
-- the I-th fence key where there are any. No check of the incarnation: that it
-- is read with what it belongs to is the point.
local routes = tonumber(ARGV[2])
local out = {incarnation(ARGV[1])}
local live = '(' .. redis.call('TIME')[1]
for i = 2, routes + 1 do
  out[i] = table.concat(redis.call('ZRANGEBYSCORE', KEYS[i], live, '+inf'), ' ')
end
-- Fences are rare: one question for all of them first.
if #KEYS > routes + 1 and redis.call('EXISTS', unpack(KEYS, routes + 2)) > 0 then
  for i = routes + 2, #KEYS do
    local all = redis.call('HGETALL', KEYS[i])
    if #all > 0 then
      out[#out + 1] = string.format('%d', i - routes - 2) .. ' ' .. table.concat(all, ' ')
    end
  end
end
return table.concat(out, '\n')
