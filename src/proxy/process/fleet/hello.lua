-- Says that a replica lives and what it says of itself, and tells who else does.
--
-- KEYS  the members (a sorted set by the time of their last word, in ms), what this replica says of itself
-- ARGV  owner, what it says, ms that it counts as alive, most members that are told, most bytes of what each says
-- Reply for each member: owner, what it says ('' where that is too long), ms since it said so
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local owner, lease, most, bytes = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('SET', KEYS[2], ARGV[2], 'PX', lease)
redis.call('ZADD', KEYS[1], now, owner)
redis.call('PEXPIRE', KEYS[1], lease)
local prefix = string.sub(KEYS[2], 1, -1 - #owner)
local reply = {}
local members = redis.call('ZREVRANGE', KEYS[1], 0, most - 1, 'WITHSCORES')
for i = 1, #members, 2 do
  local name = members[i]
  local said = redis.call('GET', prefix .. name)
  -- Its own time to live tells who is gone, whatever the clock did.
  if not said then
    redis.call('ZREM', KEYS[1], name)
  else
    table.insert(reply, name)
    table.insert(reply, #said <= bytes and said or '')
    table.insert(reply, string.format('%.0f', math.max(0, now - tonumber(members[i + 1]))))
  end
end
return reply
