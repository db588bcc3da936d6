-- Writes a canary's state if nobody wrote since it was read: a judge that slept is refused.
--
-- KEYS  the state
-- ARGV  the version that was read, ms to keep it, then name and value of each field
-- Reply 1 where it was written
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', ARGV[1] + 1))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
