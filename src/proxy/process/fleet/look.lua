-- How a canary stands in the fleet's store, and who judges it.
--
-- KEYS  the state (a hash), the judge's lease
-- ARGV  owner, ms of the lease (0: asks for none), the version and share that are known already, 1 where all fields are wanted
-- Reply ms since 1970, who judges ('': nobody), version, share (255: there is no state), then name and value of each field, if
--       they are wanted or another state is known
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local judge = redis.call('GET', KEYS[2]) or ''
if ARGV[2] ~= '0' and (judge == '' or judge == ARGV[1]) then
  judge = ARGV[1]
  redis.call('SET', KEYS[2], judge, 'PX', ARGV[2])
end
local version = redis.call('HGET', KEYS[1], 'version') or '0'
local share = redis.call('HGET', KEYS[1], 'share') or '255'
local reply = { string.format('%.0f', now), judge, version, share }
local fields = {}
if ARGV[5] == '1' then
  fields = redis.call('HGETALL', KEYS[1])
elseif version ~= ARGV[3] or share ~= ARGV[4] then
  for _, name in ipairs({ 'epoch', 'cursor', 'told', 'judge', 'by' }) do
    local value = redis.call('HGET', KEYS[1], name)
    if value then
      table.insert(fields, name)
      table.insert(fields, value)
    end
  end
end
for _, value in ipairs(fields) do table.insert(reply, value) end
return reply
