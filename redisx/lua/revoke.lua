-- revoke: KEYS rev rev_version rev_lifted.  ARGV mark limit floor, then op field value a change.
-- Ops: 'R' revoke (the latest date stands), 'A' assert what Redis may have lost,
-- 'L' lift, 'T' tell of a lift that it may have lost, 'P' drop a run-out entry if
-- it is still that one.
-- Answers 'F' (full, nothing was changed), or the number of changes, and the date
-- of what the last 'L' lifted.
-- The field '#' of rev is its mark: it names this life of the key. A version is
-- above all before it, above floor, and no lower than the time, so that none
-- ever comes again, also after both keys were lost.
-- rev_lifted keeps for an hour the dates of what was lifted: whoever has not heard
-- of it can't assert that again. A later revocation gets a later date.
local function at(value) return tonumber(string.match(value or '', '^1 (%d+) ') or '0') end
local function gone(field) return tonumber(redis.call('ZSCORE', KEYS[3], field) or '0') end
local limit, fresh = tonumber(ARGV[2]), 0
for i = 4, #ARGV, 3 do
  if ARGV[i] == 'R' and redis.call('HEXISTS', KEYS[1], ARGV[i + 1]) == 0 then fresh = fresh + 1 end
end
if fresh > 0 and redis.call('HLEN', KEYS[1]) - 1 + fresh > limit then return 'F' end
local function bury(field, date)
  if date <= gone(field) then return 0 end
  redis.call('ZADD', KEYS[3], string.format('%.0f', date), field)
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - limit)
  redis.call('EXPIRE', KEYS[3], 3600)
  return 1
end
local changes, lifted = 0, 0
for i = 4, #ARGV, 3 do
  local op, field, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local old = redis.call('HGET', KEYS[1], field)
  if op == 'R' or op == 'A' then
    local dead = gone(field)
    if op == 'R' and dead > 0 then
      if at(value) <= dead then value = '1 ' .. string.format('%.0f', dead + 1) .. string.match(value, '^1 %d+(.*)$') end
      redis.call('ZREM', KEYS[3], field)
      dead = 0
    end
    if at(value) > dead and (not old or at(old) < at(value)) then
      redis.call('HSET', KEYS[1], field, value)
      changes = changes + 1
    end
  elseif op == 'P' then
    if old == value then
      redis.call('HDEL', KEYS[1], field)
      changes = changes + 1
    end
  else
    local date = at(value)
    if op == 'L' then
      date = math.max(date, at(old))
      lifted = date
    end
    local new = bury(field, date)
    if old and at(old) <= date then
      redis.call('HDEL', KEYS[1], field)
      changes = changes + 1
    elseif op == 'L' then
      changes = changes + new
    end
  end
end
if changes > 0 then
  redis.call('HSETNX', KEYS[1], '#', ARGV[1])
  local t = redis.call('TIME')
  redis.call('SET', KEYS[2], string.format('%.0f', math.max(
    tonumber(redis.call('GET', KEYS[2]) or '0') + 1,
    tonumber(ARGV[3]) + 1,
    tonumber(t[1]) * 1000000 + tonumber(t[2]))))
end
return string.format('%.0f %.0f', changes, lifted)
