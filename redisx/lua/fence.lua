-- fence.lua outranks all sessions of a user below epoch for 600 s. A field is
-- 'EPOCH WRITTEN': its age can't be told from the epoch, for a session that
-- reasserts after hours fences with the epoch it was opened with. '%' alone is
-- no escaped user; under it stands when old fences were last looked for, so
-- that a thousand takeovers a minute don't each read all of them.
local function fence(key, user, epoch)
  local now = tonumber(redis.call('TIME')[1])
  local old = string.match(redis.call('HGET', key, user) or '', '^%d+')
  if old and tonumber(old) > tonumber(epoch) then epoch = old end
  local stamp = string.format('%.0f', now)
  redis.call('HSET', key, user, epoch .. ' ' .. stamp)
  redis.call('EXPIRE', key, 600)
  local pruned = redis.call('HGET', key, '%')
  if not pruned then
    redis.call('HSET', key, '%', '0 ' .. stamp)
  elseif tonumber(string.match(pruned, '%d+$')) + 60 < now then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      if tonumber(string.match(all[i + 1], '%d+$')) + 600 < now then redis.call('HDEL', key, all[i]) end
    end
    redis.call('HSET', key, '%', '0 ' .. stamp)
  end
end
