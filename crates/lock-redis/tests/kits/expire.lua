-- Ends the leases of all who hold a lock, as if their time were over. KEYS: its hash or stream, its
-- sharers.
if redis.call('TYPE', KEYS[1]).ok == 'stream' then
  local entry = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if entry then
    local milliseconds, place = string.match(entry[1], '^(%d+)-(%d+)$')
    local fence = (milliseconds - 1704067200000) * 1000 + place
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'h', entry[2][2], 'f', fence)
    redis.call('PEXPIRE', KEYS[1], 1200000)
  end
end
if redis.call('TYPE', KEYS[1]).ok == 'hash' and redis.call('HEXISTS', KEYS[1], 'h') == 1 then
  redis.call('HSET', KEYS[1], 'e', 1)
end
for _, sharer in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  redis.call('ZADD', KEYS[2], 1, sharer)
end
