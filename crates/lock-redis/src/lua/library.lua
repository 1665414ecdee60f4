-- What all scripts share. Times are microseconds of the server's clock since 2024, which numbers
-- below 2^53 carry exactly. A lock has five keys, all in one hash slot:
--
--   L stream, or a hash. A stream while nobody is there but a brief holder: an exclusive one that
--                came when nobody else was there, and has its first lease still. Its party (see
--                `parse`) is the first entry, and the entry's ID the fence and the time of its grant.
--                It leaves by an XDEL; the stream keeps the last ID. Entries behind the first are of
--                those who came meanwhile, saw that they are not alone, and ask in full.
--                Whoever asks in full makes it a hash, which refuses further entries:
--     hash   h   the exclusive holder's party, after a '~' while the key stays closed after its loss
--            e   until when it holds
--            f   the last fencing base, which is the time of the last exclusive grant, or more
--            q   there may be waiters in W; until when W lives
--            a   what arrival times in W count from
--            r   priorities are mixed in W, or somebody was bypassed
--            k   what shared ('s') or permit ('p<of>') parties hold or wait; n: how many parties;
--                u: permits in use
--            t   until when L lives; c: until when C does
--            m   the waiter that was asked whether it lives: '<score> <until when>'
--            i<attempt>, p<attempt>   party and slots of a shared or permit holder
--            b<band>   how often the oldest waiter of a band was bypassed: '<count> <score>'
--   W zset   waiters: their parties, by band (priority) and arrival
--   S zset   shared and permit holders: attempts, by when they expire
--   P string bitmap of the permits in use
--   C set    attempts that were cancelled before they came
--
-- Invariant: whoever fits holds. Every script that makes room calls `admit` before it ends.
local call = redis.call
local clock = call('TIME')
local now = (clock[1] - 1704067200) * 1000000 + clock[2]

-- Milliseconds that L, and the fence in it, outlives its last use.
local residue = 600000
-- Milliseconds within which a waiter that was let in must renew, or the next one is.
local offer_life = 2000
-- One priority is this wide in scores. Lower bands go first; band 0 is for the bypassed.
local band = 2 ^ 44
local bypass_limit = 64

-- A party is one line: attempt, mode (x, s, p), permits, of how many, priority, lease (ms), lock
-- delay (ms), channel, owner, and the rest of the record, which no script looks into.
local function parse(party)
  local attempt, mode, count, of, priority, lease, delay, channel =
    string.match(party, '^(%S+) (%S+) (%d+) (%d+) (%S+) (%d+) (%d+) (%S+) ')
  local kind = nil
  if mode == 's' then kind = 's' elseif mode == 'p' then kind = 'p' .. of end
  return {
    attempt = attempt, kind = kind, count = tonumber(count), of = tonumber(of),
    priority = tonumber(priority), lease = tonumber(lease), delay = tonumber(delay),
    channel = channel, line = party,
  }
end

-- The fencing base of an entry, and the ID of the entry that has it. IDs count milliseconds and, within
-- one, entries: a client does not take one past the thousandth for its fence, and asks in full.
local function base_of(id)
  local milliseconds, place = string.match(id, '^(%d+)-(%d+)$')
  return (milliseconds - 1704067200000) * 1000 + place
end

local function id_of(base)
  return string.format('%.0f-%.0f', math.floor(base / 1000) + 1704067200000, base % 1000)
end

-- When the lease of a brief holder ends. Its time of grant was cut to a millisecond.
local function ends(fence, party) return fence + 1000 + parse(party).lease * 1000 end

-- What a stream says: the last fencing base, and the party of the brief holder, if there is one.
local function look_at_stream(key)
  local first = call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  if first then return base_of(first[1]), first[2][2] end
  local about = call('XINFO', 'STREAM', key)
  for place = 1, #about, 2 do
    if about[place] == 'last-generated-id' then return base_of(about[place + 1]), false end
  end
end

-- Makes the hash of a stream.
local function make_hash(key, fence, party)
  call('DEL', key)
  call('HSET', key, 'f', fence)
  if party then call('HSET', key, 'h', party, 'e', ends(fence, party)) end
end

-- What is written of a lock.
local function look(at)
  local fields = redis.pcall('HMGET', KEYS[at], 'h', 'e', 'f', 'q', 'k', 'n', 't', 'c', 'r', 'a', 'u')
  local is_stream = fields.err ~= nil
  if is_stream then
    local fence, party = look_at_stream(KEYS[at])
    fields = {party, party and ends(fence, party), fence}
  end
  local lock = {
    L = KEYS[at], W = KEYS[at + 1], S = KEYS[at + 2], P = KEYS[at + 3], C = KEYS[at + 4],
    line = fields[1], e = tonumber(fields[2]), f = tonumber(fields[3]) or 0, q = tonumber(fields[4]),
    k = fields[5], n = tonumber(fields[6]) or 0, t = tonumber(fields[7]) or 0,
    c = tonumber(fields[8]), r = fields[9], a = tonumber(fields[10]) or 0,
    u = tonumber(fields[11]) or 0, is_stream = is_stream,
  }
  lock.h = lock.line and string.match(lock.line, '^%S+')
  return lock
end

-- Keeps L for `life` milliseconds and the residue.
local function keep(lock, life)
  if lock.t < now + (life + residue) * 1000 then
    lock.t = now + (life + 2 * residue) * 1000
    call('HSET', lock.L, 't', lock.t)
    call('PEXPIRE', lock.L, life + 2 * residue)
  end
end

-- What is written of a lock, for scripts that change it.
local function open(at)
  local lock = look(at)
  if lock.is_stream then
    make_hash(lock.L, lock.f, lock.line)
    keep(lock, lock.line and parse(lock.line).lease or 0)
    lock.cleared = true
  end
  return lock
end

local function bind(lock, kind)
  lock.k, lock.n = kind, lock.n + 1
  call('HSET', lock.L, 'k', kind, 'n', lock.n)
end

local function unbind(lock)
  lock.n = lock.n - 1
  if lock.n > 0 then
    call('HSET', lock.L, 'n', lock.n)
  else
    lock.k, lock.n, lock.u = false, 0, 0
    call('HDEL', lock.L, 'k', 'n', 'u')
    call('DEL', lock.P)
  end
end

-- Makes a party a holder for `life` milliseconds. Returns its fencing base; or the last one, for a
-- shared holder; or its first slot. A shared or permit party is bound already.
local function hold(lock, party, life)
  local attempt, until_when = party.attempt, now + life * 1000
  keep(lock, life)
  if not party.kind then
    lock.f = math.max(lock.f + 1, now)
    lock.h, lock.e, lock.line = attempt, until_when, party.line
    call('HSET', lock.L, 'h', party.line, 'e', until_when, 'f', lock.f)
    return lock.f
  end
  call('ZADD', lock.S, until_when, attempt)
  call('PEXPIRE', lock.S, life + 2 * residue)
  call('HSET', lock.L, 'i' .. attempt, party.line)
  if party.kind == 's' then return lock.f end
  local slots = {}
  for place = 1, party.count do
    slots[place] = call('BITPOS', lock.P, 0)
    call('SETBIT', lock.P, slots[place], 1)
  end
  call('PEXPIRE', lock.P, life + 2 * residue)
  lock.u = lock.u + party.count
  call('HSET', lock.L, 'p' .. attempt, table.concat(slots, ' '), 'u', lock.u)
  return slots[1]
end

-- Ends a shared or permit holder.
local function drop(lock, attempt)
  call('ZREM', lock.S, attempt)
  local slots = call('HGET', lock.L, 'p' .. attempt)
  if slots then
    for slot in string.gmatch(slots, '%d+') do
      call('SETBIT', lock.P, slot, 0)
      lock.u = lock.u - 1
    end
    call('HSET', lock.L, 'u', lock.u)
  end
  call('HDEL', lock.L, 'i' .. attempt, 'p' .. attempt)
  unbind(lock)
end

-- Ends the exclusive holder. `settle` writes it down, unless another one takes its place.
local function clear(lock)
  lock.h, lock.cleared = false, true
end

-- The last step. A lock that nobody uses any more becomes a stream again; one that only shared or
-- permit parties use does not.
local function settle(lock)
  if not lock.cleared or lock.h then return end
  if lock.q or lock.k or lock.c then
    call('HDEL', lock.L, 'h', 'e')
    return
  end
  call('DEL', lock.L)
  -- An empty stream with this ID for its last.
  call('XADD', lock.L, 'MAXLEN', 0, id_of(lock.f), 'p', '')
  call('PEXPIRE', lock.L, 2 * residue)
end

-- Ends a holder uncleanly at a given time: at once, or with the key closed for its lock delay.
local function lose(lock, attempt, at)
  local exclusive = lock.h == attempt
  local line = exclusive and lock.line or call('HGET', lock.L, 'i' .. attempt)
  local delay = line and parse(line).delay or 0
  local closed, until_when = '~' .. attempt, at + delay * 1000
  if string.sub(attempt, 1, 1) == '~' or until_when <= now then
    if exclusive then clear(lock) else drop(lock, attempt) end
    return
  end
  keep(lock, delay)
  if exclusive then
    lock.h, lock.e = closed, until_when
    call('HSET', lock.L, 'h', '~' .. line, 'e', until_when)
    return
  end
  call('ZREM', lock.S, attempt)
  call('ZADD', lock.S, until_when, closed)
  call('PEXPIRE', lock.S, delay + 2 * residue)
  call('HSET', lock.L, 'i' .. closed, line)
  local slots = call('HGET', lock.L, 'p' .. attempt)
  if slots then call('HSET', lock.L, 'p' .. closed, slots) end
  call('HDEL', lock.L, 'i' .. attempt, 'p' .. attempt)
end

-- Ends the holders whose time is over. Returns whether there were any.
local function lapse(lock)
  local lapsed = false
  if lock.h and lock.e <= now then
    lose(lock, lock.h, lock.e)
    lapsed = true
  end
  if lock.k then
    local over = call('ZRANGEBYSCORE', lock.S, '-inf', now, 'WITHSCORES')
    for place = 1, #over, 2 do
      lose(lock, over[place], tonumber(over[place + 1]))
      lapsed = true
    end
  end
  return lapsed
end

local function holders(lock)
  if lock.h then return 1 end
  return lock.k and call('ZCARD', lock.S) or 0
end

-- Whether a party goes with those who hold.
local function fits(lock, party, held)
  if held == 0 then return true end
  if lock.h or not party.kind then return false end
  return party.kind == 's' or party.of - lock.u >= party.count
end

-- Whether nobody of this band or an earlier one waits.
local function overtakes(lock, own_band)
  local head = lock.q and call('ZRANGE', lock.W, 0, 0, 'WITHSCORES') or {}
  return not head[1] or own_band < math.floor(tonumber(head[2]) / band)
end

-- The oldest waiter of each later band was bypassed, if it came first; often enough, and it goes
-- to the front.
local function count_bypass(lock, score, arrival)
  local passed = math.floor(score / band)
  while true do
    local oldest = call('ZRANGEBYSCORE', lock.W, (passed + 1) * band, '+inf', 'WITHSCORES',
      'LIMIT', 0, 1)
    if not oldest[1] then return end
    local its_score = tonumber(oldest[2])
    passed = math.floor(its_score / band)
    if its_score % band < arrival then
      local field = 'b' .. passed
      local count, of = string.match(call('HGET', lock.L, field) or '', '^(%d+) (%S+)$')
      count = (of == oldest[2] and tonumber(count) or 0) + 1
      if count >= bypass_limit then
        call('HDEL', lock.L, field)
        call('ZADD', lock.W, its_score % band, oldest[1])
      else
        lock.r = '1'
        call('HSET', lock.L, field, count .. ' ' .. oldest[2], 'r', '1')
      end
    end
  end
end

-- Tells a process the news. Returns whether it may have heard them: a server counts only its own
-- listeners, but in a cluster (channels of 'b') the news reach those of every node.
local function tell(channel, news)
  local heard = call('PUBLISH', channel, news)
  return heard > 0 or string.find(channel, ':b:', 1, true) ~= nil
end

-- Lets in those at the head of the line that fit: offers them the lock, and tells their process.
-- One that nobody listens for is dead, and the next one's turn comes.
local function admit(lock)
  while lock.q and not lock.h do
    local held, head = holders(lock), nil
    if held == 0 then
      head = call('ZPOPMIN', lock.W)
    else
      head = call('ZRANGE', lock.W, 0, 0, 'WITHSCORES')
    end
    if not head[1] then
      if lock.r then
        for _, field in ipairs(call('HKEYS', lock.L)) do
          if string.find(field, '^b%d') then call('HDEL', lock.L, field) end
        end
      end
      lock.q, lock.r = nil, false
      call('HDEL', lock.L, 'q', 'a', 'r', 'm')
      return
    end
    local party = parse(head[1])
    if held > 0 then
      if not fits(lock, party, held) then return end
      call('ZREM', lock.W, head[1])
    end
    local score = tonumber(head[2])
    if lock.r then count_bypass(lock, score, score % band) end
    local life = math.min(offer_life, party.lease)
    local value = hold(lock, party, life)
    local told = tell(party.channel,
      string.format('g %s %.0f %.0f %.0f', party.attempt, value, now, life))
    if told then
      lock.offered = true
    elseif party.kind then
      drop(lock, party.attempt)
    else
      clear(lock)
    end
  end
end

-- Takes a waiter out of the line.
local function withdraw(lock, party)
  if call('ZREM', lock.W, party.line) == 0 then return false end
  if party.kind then unbind(lock) end
  return true
end
