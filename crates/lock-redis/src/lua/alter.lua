-- Changes a grant in place. ARGV: attempt, 'downgrade' | 'owner' | 'keep', the new owner or channel,
-- and for 'keep' the new owner, or ''.
-- Returns {1, now, fence or slot, lease (ms)}, {0, now} if it is lost, {3, now, kind} for a conflict.
local attempt, change, word = ARGV[1], ARGV[2], ARGV[3]
local lock = open(1)
if lapse(lock) then admit(lock) end
local exclusive = lock.h == attempt
if not exclusive and not (lock.k and call('ZSCORE', lock.S, attempt)) then
  settle(lock)
  return {0, now}
end
local field = exclusive and 'h' or ('i' .. attempt)
local line = call('HGET', lock.L, field)
local party = parse(line)
local value = lock.f
if party.kind and party.kind ~= 's' then
  value = tonumber(string.match(call('HGET', lock.L, 'p' .. attempt), '^%d+'))
end
-- Channel and owner are the eighth and ninth word.
local function rewrite(channel, owner)
  line = string.gsub(line, '^(%S+ %S+ %S+ %S+ %S+ %S+ %S+ )(%S+) (%S+)', function(front, old, own)
    return front .. (channel or old) .. ' ' .. (owner or own)
  end)
  call('HSET', lock.L, field, line)
end
if change == 'owner' then
  rewrite(nil, word)
elseif change == 'keep' then
  rewrite(word, ARGV[4] ~= '' and ARGV[4] or nil)
  keep(lock, party.lease)
  if exclusive then
    call('HSET', lock.L, 'e', now + party.lease * 1000)
  else
    call('ZADD', lock.S, now + party.lease * 1000, attempt)
    call('PEXPIRE', lock.S, party.lease + 2 * residue)
    call('PEXPIRE', lock.P, party.lease + 2 * residue)
  end
elseif change == 'downgrade' and exclusive then
  if lock.k and lock.k ~= 's' then
    settle(lock)
    return {3, now, lock.k}
  end
  local life = math.max(lock.e - now, 0)
  line = string.gsub(line, '^(%S+) %S+', '%1 s')
  clear(lock)
  bind(lock, 's')
  call('ZADD', lock.S, now + life, attempt)
  call('PEXPIRE', lock.S, party.lease + 2 * residue)
  call('HSET', lock.L, 'i' .. attempt, line)
  admit(lock)
end
settle(lock)
return {1, now, value, party.lease}
