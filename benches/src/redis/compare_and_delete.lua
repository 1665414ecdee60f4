-- The release that Redis's documentation gives for a key set by `SET NX PX`.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
