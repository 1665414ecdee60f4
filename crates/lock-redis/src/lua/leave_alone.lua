-- The common case, in as little as it takes: the exclusive holder leaves, and nobody waits. The
-- fence (f) stays behind until the key expires.
-- KEYS: L. ARGV: attempt and a space. Returns 1, or 0 to be asked again in full.
local fields = redis.call('HMGET', KEYS[1], 'h', 'q')
local holder = fields[1]
if not holder or fields[2] or string.sub(holder, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'h', 'e')
return 1
