-- The batches that a judge has not read.
--
-- KEYS  the stream
-- ARGV  ms and number of the last that it has, most entries
-- Reply 1 where the stream ends before that one, and so is another, then for each entry: id, owner, number, ms that it waited, what it holds
local at, number = tonumber(ARGV[1]), tonumber(ARGV[2])
local reply = { '0' }
if redis.call('EXISTS', KEYS[1]) == 0 then return reply end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    local last_at, last_number = string.match(info[i + 1], '(%d+)-(%d+)')
    last_at, last_number = tonumber(last_at), tonumber(last_number)
    if last_at < at or (last_at == at and last_number < number) then reply[1] = '1' end
  end
end
local from = reply[1] == '1' and '-' or '(' .. ARGV[1] .. '-' .. ARGV[2]
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', ARGV[3])) do
  local has = {}
  for i = 1, #entry[2], 2 do has[entry[2][i]] = entry[2][i + 1] end
  table.insert(reply, entry[1])
  for _, name in ipairs({ 'o', 'n', 'w', 'p' }) do table.insert(reply, has[name] or '') end
end
return reply
