-- join: KEYS inc s sel [route].  ARGV inc nonce me conn life number lazy chatmode chat selttl.
-- Answers 'S INC' or 'O'. The chat is remembered only while the lock is ours: a
-- session that was outranked meanwhile must not undo its successor's choice.
local inc = incarnation(ARGV[2])
if inc ~= ARGV[1] then return 'S ' .. inc end
local me = ARGV[3]
if KEYS[4] then touch(KEYS[4], me, ARGV[5], ARGV[6], ARGV[7], tonumber(redis.call('TIME')[1])) end
if ARGV[8] ~= '' then
  local _, conn, _, owner = lock(redis.call('GET', KEYS[2]))
  if owner == me and conn == ARGV[4] then
    if ARGV[8] == '=' then
      redis.call('SET', KEYS[3], ARGV[9], 'EX', ARGV[10])
    else
      redis.call('DEL', KEYS[3])
    end
  end
end
return 'O'
