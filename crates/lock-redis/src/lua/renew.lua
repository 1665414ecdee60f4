-- Extends leases; never makes one. KEYS: L and S of each lock. ARGV: attempt and lease (ms) of each.
-- Returns now, and for each lock 1, or 0 if it is lost.
local outcomes = {now}
for place = 1, #KEYS, 2 do
  local hash, sharers = KEYS[place], KEYS[place + 1]
  local attempt, lease = ARGV[place], tonumber(ARGV[place + 1])
  local until_when = now + lease * 1000
  local fields = redis.pcall('HMGET', hash, 'h', 'e', 'k', 't')
  local alive, fence, party = false, nil, nil
  if fields.err then
    fence, party = look_at_stream(hash)
    fields = {party, party and ends(fence, party)}
  end
  if fields[1] and string.sub(fields[1], 1, #attempt + 1) == attempt .. ' ' then
    alive = tonumber(fields[2]) > now
    if alive then
      if party then make_hash(hash, fence, party) end
      call('HSET', hash, 'e', until_when)
    end
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
