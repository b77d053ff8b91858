-- reassert: KEYS inc e, then s f sel a session.
-- ARGV inc nonce me seen ttl selttl, then conn epoch fresh user chat a session.
-- Answers 'S INC', or 'R' and a line a session: 'O', 'O PREV', 'L'
-- (outranked), 'U' (by nobody known, but it can't be confirmed either).
local inc = incarnation(ARGV[2])
if inc ~= ARGV[1] then return 'S ' .. inc end
local me, seen, ttl, selttl = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local issued
local out = {'R'}
for i = 1, (#KEYS - 2) / 3 do
  local s, f, sel = KEYS[3 * i], KEYS[3 * i + 1], KEYS[3 * i + 2]
  local a = 5 * i + 2
  local conn, mine, chat = ARGV[a], ARGV[a + 1], ARGV[a + 4]
  local value = redis.call('GET', s)
  local whole = value == '1 ' .. mine .. ' ' .. conn .. ' 1 ' .. me -- nearly always
  local known = not value or string.sub(value, 1, 2) == '1 '
  local epoch, c, settled, owner, prev
  if known and not whole then epoch, c, settled, owner, prev = lock(value) end
  local answer = 'O'
  if not known then
    answer = 'L' -- of another protocol version, which has its own successor rules
  elseif whole or owner == me and c == conn then
    redis.call('EXPIRE', s, ttl)
    if chat ~= '' then redis.call('EXPIRE', sel, selttl) end
    -- Unsettled: the answer that named the predecessor may have been lost.
    if settled == '0' then answer = 'O ' .. prev end
  elseif mine ~= '0' then
    local n = tonumber(mine)
    local fenced = string.match(redis.call('HGET', f, ARGV[a + 3]) or '', '^%d+')
    if not epoch and ARGV[a + 2] == '0' and not issued then
      issued = tonumber(redis.call('GET', KEYS[2]) or '0')
    end
    if epoch and tonumber(epoch) > n or fenced and tonumber(fenced) > n then
      answer = 'L'
    elseif not epoch and ARGV[a + 2] == '0' and issued > seen then
      answer = 'U' -- unverified for long, and somebody logged in meanwhile: may have come and gone
    else
      local before, state = '', '1'
      if owner then
        before = ' ' .. epoch .. ' ' .. c .. ' ' .. settled .. ' ' .. owner
        state = '0'
        answer = 'O' .. before
      end
      redis.call('SET', s, '1 ' .. mine .. ' ' .. conn .. ' ' .. state .. ' ' .. me .. before, 'EX', ttl)
      -- NX: what stands there is at least as new as the caller's memory.
      if chat ~= '' then redis.call('SET', sel, chat, 'EX', selttl, 'NX') end
    end
  end
  out[i + 1] = answer
end
return table.concat(out, '\n')
