-- The common case, in as little as it takes: an exclusive acquire of a lock whose hash says nothing
-- but the last fence (f) and its own life (t). See library.lua for the fields.
-- KEYS: L. ARGV: field of a brief holder, party, lease (ms).
-- Returns the fencing base, or 0 to be asked again in full.
local call = redis.call
-- A third field is one too many, whichever it is.
local fields, found = call('HRANDFIELD', KEYS[1], 3, 'WITHVALUES'), {}
for place = 1, #fields, 2 do found[fields[place]] = fields[place + 1] end
local f, t = found.f, found.t
if #fields > (f and 2 or 0) + (t and 2 or 0) then return 0 end
local clock = call('TIME')
local now = (clock[1] - 1704067200) * 1000000 + clock[2]
local fence = (f or 0) + 1
if fence < now then fence = now end
-- The lease and ten minutes, as `keep` of library.lua has it.
local needed = now + ARGV[3] * 1000 + 600000000
if t and tonumber(t) >= needed then
  call('HSET', KEYS[1], ARGV[1], ARGV[2], 'f', fence)
else
  call('HSET', KEYS[1], ARGV[1], ARGV[2], 'f', fence, 't', needed + 600000000)
  call('PEXPIRE', KEYS[1], ARGV[3] + 1200000)
end
return fence
