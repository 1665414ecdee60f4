-- Takes the lock away from all holders, or from one, and tells their processes.
-- ARGV: attempt or ''. Returns {how many, now, until when the key stays closed}.
local lock = open(1)
local broken, lapsed = 0, lapse(lock)
local function take_away(attempt, line)
  if string.sub(attempt, 1, 1) == '~' or (ARGV[1] ~= '' and ARGV[1] ~= attempt) then return end
  if line then call('PUBLISH', parse(line).channel, 'b ' .. attempt) end
  lose(lock, attempt, now)
  broken = broken + 1
end
if lock.h then
  take_away(lock.h, lock.line)
elseif lock.k then
  for _, attempt in ipairs(call('ZRANGE', lock.S, 0, -1)) do
    take_away(attempt, call('HGET', lock.L, 'i' .. attempt))
  end
end
if broken > 0 or lapsed then admit(lock) end
settle(lock)
return {broken, now, lock.h and lock.e or 0}
