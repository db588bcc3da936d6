-- Puts a state that a replica has kept in place of one that has come less far: the store lost what it knew.
--
-- KEYS  the state
-- ARGV  version and share of what is offered, ms to keep it, then name and value of each field
-- Reply 1 where it was taken
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
local share = tonumber(redis.call('HGET', KEYS[1], 'share') or '255')
local offered, less = tonumber(ARGV[1]), tonumber(ARGV[2]) < share
if offered < version or (offered == version and not less) then return 0 end
redis.call('DEL', KEYS[1])
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', offered + 1))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
