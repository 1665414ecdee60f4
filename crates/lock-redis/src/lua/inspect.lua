-- Who holds and who waits; changes nothing. ARGV: how many waiters at most.
-- Returns {now, fence, {party and until when of each holder}, {party and arrival of each waiter}}.
local lock, held, waiters = look(1), {}, {}
if lock.h and string.sub(lock.h, 1, 1) ~= '~' and lock.e > now then
  held = {lock.line, lock.e}
elseif lock.k then
  local sharers = call('ZRANGEBYSCORE', lock.S, now, '+inf', 'WITHSCORES')
  for place = 1, #sharers, 2 do
    local line = call('HGET', lock.L, 'i' .. sharers[place])
    if line and string.sub(sharers[place], 1, 1) ~= '~' then
      held[#held + 1] = line
      held[#held + 1] = tonumber(sharers[place + 1])
    end
  end
end
if lock.q then
  local line = call('ZRANGE', lock.W, 0, ARGV[1] - 1, 'WITHSCORES')
  for place = 1, #line, 2 do
    waiters[#waiters + 1] = line[place]
    waiters[#waiters + 1] = lock.a + tonumber(line[place + 1]) % band
  end
end
return {now, lock.f, held, waiters}
