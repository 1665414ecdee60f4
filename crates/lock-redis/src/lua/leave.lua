-- Ends an attempt in any state, and lets in who comes next.
-- ARGV: attempt, party or '', 'late' if an acquire of it may still be on its way
-- Returns {1 it held or 0, now, 1 if the lock was offered to one while others wait}.
local attempt = ARGV[1]
local lock = open(1)
local lapsed = lapse(lock)
local held, left = 0, true
if lock.h == attempt then
  clear(lock)
  held = 1
elseif lock.k and call('ZSCORE', lock.S, attempt) then
  drop(lock, attempt)
  held = 1
elseif ARGV[2] == '' or not lock.q or not withdraw(lock, parse(ARGV[2])) then
  left = lapsed
end
if ARGV[3] == 'late' then
  -- Five minutes are more than a packet lives.
  call('SADD', lock.C, attempt)
  call('PEXPIRE', lock.C, 300000)
  call('HSET', lock.L, 'c', now + 300000000)
  keep(lock, 300000)
end
if left then admit(lock) end
settle(lock)
return {held, now, lock.offered and lock.q and 1 or 0}
