-- edge.lua joins a route until life seconds from now. The score is
-- 'EXPIRY.NUMBER', NUMBER being the six-digit count of the pod's edges of this
-- partition. A command whose connection was given up may still lie in a buffer
-- and come after newer ones: an edge with a newer number is left as it is, by
-- join and by leave. Numbers are compared on a circle of a million.
local function newer(score, number)
  local ahead = (math.floor((tonumber(score) % 1) * 1000000 + 0.5) - tonumber(number)) % 1000000
  return ahead > 0 and ahead < 500000
end
local function join(key, me, life, number, now)
  local score = redis.call('ZSCORE', key, me)
  if score and newer(score, number) then return end
  redis.call('ZADD', key, string.format('%.0f.%06d', now + tonumber(life), tonumber(number)), me)
  redis.call('EXPIRE', key, life)
end
-- touch is a join that may be lazy: an edge with most of its life before it is
-- left as it is, with its older number. That is wrong only while late commands
-- may lie about, so the caller says when it is allowed.
local function touch(key, me, life, number, lazy, now)
  if lazy == '1' then
    local score = redis.call('ZSCORE', key, me)
    if score and tonumber(score) > now + life * 0.9 then return end
  end
  join(key, me, life, number, now)
end
