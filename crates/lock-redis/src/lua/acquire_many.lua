-- Takes several locks, all or none. KEYS: five for each. ARGV: party of each.
-- Returns {1, now, fence or slot of each}, {0, now} if one is contended, {3, now, kind}.
local locks, parties, held = {}, {}, {}
local function settled(answer)
  for _, lock in ipairs(locks) do settle(lock) end
  return answer
end
for place = 1, #KEYS / 5 do
  local lock = open(place * 5 - 4)
  local party = parse(ARGV[place])
  if lapse(lock) then admit(lock) end
  locks[place], parties[place] = lock, party
  held[place] = lock.h == party.attempt
    or (party.kind and lock.k and call('ZSCORE', lock.S, party.attempt)) and true
end
local answer = {1, now}
for place, lock in ipairs(locks) do
  local party = parties[place]
  if not held[place] then
    if lock.c and lock.c > now and call('SISMEMBER', lock.C, party.attempt) == 1 then
      return settled({4, now})
    end
    if lock.k and party.kind and lock.k ~= party.kind then return settled({3, now, lock.k}) end
    local enters = fits(lock, party, holders(lock)) and overtakes(lock, 128 - party.priority)
    if not enters then return settled({0, now}) end
  end
end
for place, lock in ipairs(locks) do
  local party, value = parties[place], nil
  if not held[place] then
    if party.kind then bind(lock, party.kind) end
    value = hold(lock, party, party.lease)
  elseif lock.h == party.attempt then
    lock.e = now + party.lease * 1000
    keep(lock, party.lease)
    call('HSET', lock.L, 'e', lock.e)
    value = lock.f
  else
    call('ZADD', lock.S, now + party.lease * 1000, party.attempt)
    local slots = call('HGET', lock.L, 'p' .. party.attempt)
    value = slots and tonumber(string.match(slots, '^%d+')) or lock.f
  end
  answer[#answer + 1] = value
end
return settled(answer)
