-- What is there beyond the declared residue, which the server itself removes within the hour: the
-- fence, the life of the key, early cancels; and what those left who crashed.
local clock = redis.call('TIME')
local now = (clock[1] - 1704067200) * 1000000 + clock[2]
local left = {}
for _, key in ipairs(redis.call('KEYS', 'lock:*')) do
  local hash = string.match(key, '^(lock:{.*}):.$') or key
  local line, e, f = unpack(redis.call('HMGET', hash, 'h', 'e', 'f'))
  local lease = line and string.match(line, '^%S+ %S+ %S+ %S+ %S+ (%d+)')
  local crashed = lease and tonumber(e or f + lease * 1000) <= now
  local sharers = redis.call('ZRANGE', hash .. ':s', -1, -1, 'WITHSCORES')
  crashed = crashed or sharers[1] and tonumber(sharers[2]) <= now
  local clean = key == hash .. ':c'
  if key == hash then
    clean = true
    for _, field in ipairs(redis.call('HKEYS', hash)) do
      clean = clean and (field == 'f' or field == 't' or field == 'c')
    end
  end
  local waiters = redis.call('ZCARD', hash .. ':w')
  if waiters > 0 or not (clean or crashed) then
    left[#left + 1] = key .. ' ' .. table.concat(redis.call('HGETALL', hash), ' ')
  end
  if redis.call('TTL', key) <= 0 then left[#left + 1] = key .. ' has no end' end
end
return left
