-- Ends the leases of all who hold a lock, as if their time were over. KEYS: its hash, its sharers.
local fields = redis.call('HGETALL', KEYS[1])
for place = 1, #fields, 2 do
  if string.sub(fields[place], 1, 1) == 'x' then
    redis.call('HDEL', KEYS[1], fields[place])
    redis.call('HSET', KEYS[1], 'h', fields[place + 1])
  end
end
if redis.call('HEXISTS', KEYS[1], 'h') == 1 then redis.call('HSET', KEYS[1], 'e', 1) end
for _, sharer in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  redis.call('ZADD', KEYS[2], 1, sharer)
end
