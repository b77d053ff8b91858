-- lock.lua reads a lock value: '1 EPOCH CONN SETTLED OWNER[ PREV]', PREV being
-- 'EPOCH CONN SETTLED OWNER' too, or a tombstone '1 EPOCH'. Numbers stay
-- strings as far as they are only passed on, for Lua's own way of printing
-- them loses digits. A version other than 1 is another protocol's: touching it
-- would break whoever wrote it.
local function lock(value)
  if not value then return nil end
  local epoch, conn, settled, owner, prev = string.match(value, '^1 (%d+) (%d+) ([01]) ([^ ]+) ?(.*)$')
  if not epoch then epoch = string.match(value, '^1 (%d+)$') end
  if not epoch then error('DWSVERSION lock of an unknown version: ' .. value) end
  return epoch, conn, settled, owner, prev
end
