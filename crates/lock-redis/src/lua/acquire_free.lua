-- An exclusive acquire of a lock that nobody else uses, which may be new: as `Call::enter`, and it
-- sees to the life of the key. See library.lua for the stream.
-- KEYS: L. ARGV: party, lease (ms).
-- Returns the entry of a brief holder, or 0 to be asked again in full.
local entry = redis.pcall('XADD', KEYS[1], '*', 'p', ARGV[1])
if type(entry) == 'table' then
  return string.find(entry.err, 'WRONGTYPE', 1, true) and 0 or entry
end
if redis.call('XLEN', KEYS[1]) > 1 then return 0 end
-- The lease and ten minutes, as `keep` of library.lua has it.
if redis.call('PTTL', KEYS[1]) < ARGV[2] + 600000 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2] + 1200000)
end
return entry
