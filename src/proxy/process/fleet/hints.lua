-- Tells the other replicas what was seen of endpoints, and hears what they tell. Nothing of it is worth keeping: what is no stream is
-- replaced by one.
--
-- KEYS  the stream
-- ARGV  id of the last that was heard ('': none yet), ms to keep the stream, most entries, most bytes of a value, owner, machine, then for
--       each hint its kind, upstream, endpoint, address, and ms that it holds
-- Reply ms since 1970, id of the last that is heard now, then for each hint: owner, machine, kind, upstream, endpoint, address, ms that it
--       held, ms ago ('' in place of what is too long or not there)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local heard, keep, most, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local is = redis.call('TYPE', KEYS[1]).ok
if is ~= 'stream' and is ~= 'none' then redis.call('DEL', KEYS[1]) end
local function add(call, i)
  return call('XADD', KEYS[1], 'MAXLEN', most, '*', 'o', ARGV[5], 'h', ARGV[6], 'k', ARGV[i], 'u', ARGV[i + 1], 'e', ARGV[i + 2],
    'a', ARGV[i + 3], 'l', ARGV[i + 4], 't', string.format('%.0f', now))
end
for i = 7, #ARGV, 5 do
  local added = add(redis.pcall, i)
  -- Somebody may have written the highest id that there is: nothing could follow it.
  if type(added) == 'table' and added.err then
    redis.call('DEL', KEYS[1])
    add(redis.call, i)
  end
end
if #ARGV > 6 then redis.call('PEXPIRE', KEYS[1], keep) end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local reply = { string.format('%.0f', now), heard }
if not last or last[1] == heard then return reply end
local from = string.format('%.0f', now - keep)
local at, number = string.match(heard, '(%d+)-(%d+)')
if at then
  local last_at, last_number = string.match(last[1], '(%d+)-(%d+)')
  at, number, last_at, last_number = tonumber(at), tonumber(number), tonumber(last_at), tonumber(last_number)
  -- A stream that ends before what was heard is another: all of it is new.
  local is_another = last_at < at or (last_at == at and last_number < number)
  from = is_another and '-' or '(' .. heard
end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', most)) do
  reply[2] = entry[1]
  local has = {}
  for i = 1, #entry[2], 2 do has[entry[2][i]] = entry[2][i + 1] end
  for _, name in ipairs({ 'o', 'h', 'k', 'u', 'e', 'a', 'l' }) do
    local value = has[name] or ''
    table.insert(reply, #value <= bytes and value or '')
  end
  local told = tonumber(has['t'] or '') or 0
  table.insert(reply, string.format('%.0f', math.max(0, now - told)))
end
return reply
