-- Extends leases; never makes one. KEYS: L and S of each lock. ARGV: attempt and lease (ms) of each.
-- Returns now, and for each lock 1, or 0 if it is lost.
local outcomes = {now}
for place = 1, #KEYS, 2 do
  local hash, sharers = KEYS[place], KEYS[place + 1]
  local attempt, lease = ARGV[place], tonumber(ARGV[place + 1])
  local until_when, brief = now + lease * 1000, 'x' .. attempt
  local fields = call('HMGET', hash, 'h', 'e', 'k', 't', 'f', brief)
  local alive = false
  if fields[6] then
    alive = ends(fields[5], fields[6]) > now
    if alive then
      call('HDEL', hash, brief)
      call('HSET', hash, 'h', fields[6], 'e', until_when)
    end
  elseif fields[1] and string.sub(fields[1], 1, #attempt + 1) == attempt .. ' ' then
    alive = tonumber(fields[2]) > now
    if alive then call('HSET', hash, 'e', until_when) end
  elseif fields[3] then
    alive = (tonumber(call('ZSCORE', sharers, attempt)) or 0) > now
    if alive then
      call('ZADD', sharers, until_when, attempt)
      call('PEXPIRE', sharers, lease + 2 * residue)
    end
  end
  if alive and (tonumber(fields[4]) or 0) < until_when + residue * 1000 then
    call('HSET', hash, 't', until_when + 2 * residue * 1000)
    call('PEXPIRE', hash, lease + 2 * residue)
  end
  outcomes[#outcomes + 1] = alive and 1 or 0
end
return outcomes
