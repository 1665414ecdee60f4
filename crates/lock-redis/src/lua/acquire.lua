-- ARGV: party, patience ('try', 'wait', or 'again' for one that has waited), arrival (0 if it has
-- none yet)
-- Returns {1 granted, now, fence or slot}, {2 queued, now, until when others hold, arrival, whether
-- it is new}, {0 contended, now}, {3 conflict, now, kind} or {4 cancelled, now}.
local lock, party, patience = open(1), parse(ARGV[1]), ARGV[2]
local attempt = party.attempt

-- What it holds already is held for a whole lease from now on.
local function held_by_it()
  if lock.h == attempt then
    lock.e = now + party.lease * 1000
    keep(lock, party.lease)
    call('HSET', lock.L, 'e', lock.e)
    return lock.f
  end
  if not party.kind or not lock.k or not call('ZSCORE', lock.S, attempt) then return nil end
  keep(lock, party.lease)
  call('ZADD', lock.S, now + party.lease * 1000, attempt)
  call('PEXPIRE', lock.S, party.lease + 2 * residue)
  if party.kind == 's' then return lock.f end
  call('PEXPIRE', lock.P, party.lease + 2 * residue)
  return tonumber(string.match(call('HGET', lock.L, 'p' .. attempt), '^%d+'))
end

-- Asks the head of the line whether it lives. Returns whether it was found dead.
local function head_is_dead()
  local head = call('ZRANGE', lock.W, 0, 0, 'WITHSCORES')
  if not head[1] or head[1] == party.line then return false end
  local first = parse(head[1])
  local asked, limit = string.match(call('HGET', lock.L, 'm') or '', '^(%S+) (%S+)$')
  local dead = asked == head[2] and tonumber(limit) < now
  dead = dead or not tell(first.channel, 'p ' .. first.attempt)
  if dead then return withdraw(lock, first) end
  if asked ~= head[2] then
    call('HSET', lock.L, 'm', head[2] .. ' ' .. string.format('%.0f', now + offer_life * 1000))
  end
  return false
end

if lock.c then
  if lock.c <= now then
    call('HDEL', lock.L, 'c')
  elseif call('SISMEMBER', lock.C, attempt) == 1 then
    return {4, now}
  end
end
if lapse(lock) or patience == 'again' then admit(lock) end
if patience == 'again' then
  while lock.q and head_is_dead() do admit(lock) end
end

local value = held_by_it()
if value then
  settle(lock)
  return {1, now, value}
end

local score = patience == 'again' and lock.q and call('ZSCORE', lock.W, party.line)
local arrival, is_new = nil, 0
if score then
  -- The word of life that `head_is_dead` waits for.
  local asked = call('HGET', lock.L, 'm')
  if asked and string.match(asked, '^%S+') == score then call('HDEL', lock.L, 'm') end
else
  if lock.k and party.kind and lock.k ~= party.kind then
    settle(lock)
    return {3, now, lock.k}
  end
  local own_band = 128 - party.priority
  if fits(lock, party, holders(lock)) and overtakes(lock, own_band) then
    if lock.q then count_bypass(lock, own_band * band, band) end
    if party.kind then bind(lock, party.kind) end
    value = hold(lock, party, party.lease)
    settle(lock)
    return {1, now, value}
  end
  if patience == 'try' then
    settle(lock)
    return {0, now}
  end
  if not lock.q then
    -- In the middle, so that those who come again after a restart find their earlier place.
    lock.a = now - band / 2
  end
  if party.priority ~= 0 and not lock.r then call('HSET', lock.L, 'r', '1') end
  arrival = tonumber(ARGV[3])
  if arrival == 0 or arrival > now then arrival = now end
  local place = math.min(math.max(arrival - lock.a, 0), band - 1)
  -- It may be there: the answer to an earlier request may have been lost.
  is_new = call('ZADD', lock.W, 'NX', own_band * band + place, party.line)
  if is_new == 0 then
    score = call('ZSCORE', lock.W, party.line)
  elseif party.kind then
    bind(lock, party.kind)
  end
end
if score then arrival = lock.a + tonumber(score) % band end

if not lock.q or lock.q < now + residue * 1000 then
  call('PEXPIRE', lock.W, 2 * residue)
  lock.q = now + 2 * residue * 1000
  call('HSET', lock.L, 'q', lock.q, 'a', lock.a)
end
keep(lock, 2 * residue)
settle(lock)
local until_when = lock.e or 0
if not lock.h and lock.k then
  until_when = tonumber(call('ZRANGE', lock.S, 0, 0, 'WITHSCORES')[2]) or 0
end
return {2, now, until_when, arrival, is_new}
