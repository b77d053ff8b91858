-- revoked: KEYS rev rev_version.  Answers lines: VERSION; 'FIELD VALUE' an entry.
-- Joined by the hundred: miniredis' Lua can't join fifty thousand at once.
local out, some = {redis.call('GET', KEYS[2]) or '0'}, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  some[#some + 1] = all[i] .. ' ' .. all[i + 1]
  if #some == 250 or i + 1 == #all then
    out[#out + 1] = table.concat(some, '\n')
    some = {}
  end
end
return table.concat(out, '\n')
