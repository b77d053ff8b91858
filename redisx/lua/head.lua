-- head.lua stands before every script that reads the incarnation of its
-- partition, KEYS[1], and makes one when there is none: keys were lost, and
-- nobody may take that for "nobody wants it". The nonce comes from the caller,
-- for Redis seeds its random numbers the same way in every script.
local function incarnation(nonce)
  local inc = redis.call('GET', KEYS[1])
  if not inc then
    local t = redis.call('TIME')
    inc = t[1] .. string.format('%06d', tonumber(t[2])) .. '-' .. nonce
    redis.call('SET', KEYS[1], inc)
  end
  return inc
end
