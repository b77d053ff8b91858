-- revoke: KEYS rev rev_version.  ARGV mark limit floor, then op field value a change.
-- Ops: 'R' revoke (the latest date stands), 'A' assert what Redis may have lost,
-- 'L' lift, 'P' drop a run-out entry if it is still that one.
-- Answers 'F' (full, nothing was changed), or the number of changes.
-- The field '#' of rev is its mark: it names this life of the key. A version is
-- above all before it, above floor, and no lower than the time, so that none
-- ever comes again, also after both keys were lost.
local function at(value) return tonumber(string.match(value or '', '^1 (%d+) ') or '0') end
local limit, fresh = tonumber(ARGV[2]), 0
for i = 4, #ARGV, 3 do
  if ARGV[i] == 'R' and redis.call('HEXISTS', KEYS[1], ARGV[i + 1]) == 0 then fresh = fresh + 1 end
end
if fresh > 0 and redis.call('HLEN', KEYS[1]) - 1 + fresh > limit then return 'F' end
local changes = 0
for i = 4, #ARGV, 3 do
  local op, field, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local old = redis.call('HGET', KEYS[1], field)
  if op == 'R' or op == 'A' then
    if not old or at(old) < at(value) then
      redis.call('HSET', KEYS[1], field, value)
      changes = changes + 1
    end
  elseif old and (op == 'L' or old == value) then
    redis.call('HDEL', KEYS[1], field)
    changes = changes + 1
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
return string.format('%.0f', changes)
