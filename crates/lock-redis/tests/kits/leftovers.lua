-- What is there beyond the declared residue, which the server itself removes within the hour: the
-- fence, the life of the key, early cancels; and what those left who crashed.
local clock = redis.call('TIME')
local now = (clock[1] - 1704067200) * 1000000 + clock[2]
local left = {}
for _, key in ipairs(redis.call('KEYS', 'lock:*')) do
  local hash = string.match(key, '^(lock:{.*}):.$') or key
  local fields, all, crashed = {}, {}, false
  if redis.call('TYPE', hash).ok == 'stream' then
    for _, entry in ipairs(redis.call('XRANGE', hash, '-', '+')) do
      local granted = (string.match(entry[1], '^%d+') - 1704067200000) * 1000
      local lease = string.match(entry[2][2], '^%S+ %S+ %S+ %S+ %S+ (%d+)')
      fields.entry, all = entry[2][2], entry[2]
      crashed = granted + (lease + 1) * 1000 <= now
    end
  else
    all = redis.call('HGETALL', hash)
    for place = 1, #all, 2 do fields[all[place]] = all[place + 1] end
    crashed = fields.h and tonumber(fields.e) <= now
  end
  local sharers = redis.call('ZRANGE', hash .. ':s', -1, -1, 'WITHSCORES')
  crashed = crashed or sharers[1] and tonumber(sharers[2]) <= now
  local clean = key == hash .. ':c'
  if key == hash then
    clean = true
    for field in pairs(fields) do
      clean = clean and (field == 'f' or field == 't' or field == 'c')
    end
  end
  local waiters = redis.call('ZCARD', hash .. ':w')
  if waiters > 0 or not (clean or crashed) then
    left[#left + 1] = key .. ' ' .. table.concat(all, ' ')
  end
  if redis.call('TTL', key) <= 0 then left[#left + 1] = key .. ' has no end' end
end
return left
