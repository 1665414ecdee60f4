-- The common case, in as little as it takes: an exclusive acquire of a key that nobody holds (h),
-- waits for (q) or shares (k), and of which no attempt was cancelled before it came (c). See
-- library.lua for the fields.
-- KEYS: L. ARGV: party, lease (ms). Returns the fencing base, or 0 to be asked again in full.
local call = redis.call
local fields = call('HMGET', KEYS[1], 'h', 'q', 'k', 'c', 'f', 't')
if fields[1] or fields[2] or fields[3] or fields[4] then return 0 end
local clock = call('TIME')
local now = (clock[1] - 1704067200) * 1000000 + clock[2]
local fence = (fields[5] or 0) + 1
if fence < now then fence = now end
-- The lease and ten minutes, as `keep` of library.lua has it.
local needed = now + ARGV[2] * 1000 + 600000000
if fields[6] and tonumber(fields[6]) >= needed then
  call('HSET', KEYS[1], 'h', ARGV[1], 'f', fence)
else
  call('HSET', KEYS[1], 'h', ARGV[1], 'f', fence, 't', needed + 600000000)
  call('PEXPIRE', KEYS[1], ARGV[2] + 1200000)
end
return fence
