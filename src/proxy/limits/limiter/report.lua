-- What one request has used by now. The numbers are totals and not steps, so that a call which is repeated, because its
-- answer was lost, changes nothing. A request that was admitted without the store is charged, and held nothing here.
--
-- KEYS  owners, reservation, one cell a claim
-- ARGV  owner, lease in ms, tokens used, cost used, 1 at the end, then for each claim:
--       tokens held, tokens a minute, burst (0 a minute: no token limit), cost held, 1 where it has a budget, 1 where it
--       took one of the places at one time
-- Reply for each claim: 1 where more is taken than its burst
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local owner, used, cost, done = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
redis.call('ZADD', KEYS[1], now + ARGV[2] * 1000, owner)
local function whole(value) return string.format('%.0f', value) end

local known = redis.call('HMGET', KEYS[2], 'a', 'u', 'e', 'x')
local reply = {}
if known[4] then
  for index = 3, #KEYS do reply[index - 2] = 0 end
  return reply
end
local admitted, used_before, cost_before = known[1], tonumber(known[2] or 0), tonumber(known[3] or 0)

local function lower(key, field, amount)
  if amount <= 0 then return end
  local left = redis.call('HINCRBY', key, field, whole(-amount))
  if left <= 0 then redis.call('HDEL', key, field) end
end

for index = 3, #KEYS do
  local key, base = KEYS[index], 6 + (index - 3) * 6
  local held, rate, burst = tonumber(ARGV[base]), tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
  local cost_held, has_budget, runs = tonumber(ARGV[base + 3]), ARGV[base + 4] == '1', ARGV[base + 5] == '1'
  local spent = 0
  if rate > 0 then
    local state = redis.call('HMGET', key, 's', 't')
    local at = tonumber(state[2] or now)
    spent = math.max(0, tonumber(state[1] or 0) - math.floor(rate * math.max(0, now - at) / 60))
    spent = math.max(0, spent + (used - used_before) * 1000000)
    redis.call('HSET', key, 's', whole(spent), 't', whole(now))
    if admitted then
      local kept = done and 0 or math.max(0, held - used)
      lower(key, 'h:' .. owner, math.max(0, held - used_before) - kept)
    end
  end
  if has_budget and cost ~= cost_before then
    redis.call('HINCRBY', key, 'D' .. math.floor(clock[1] / 1800), whole(cost - cost_before))
    redis.call('HINCRBY', key, 'M' .. math.floor(clock[1] / 54000), whole(cost - cost_before))
  end
  if admitted then
    local kept = (done or not has_budget) and (done and 0 or cost_held) or math.max(0, cost_held - cost)
    lower(key, 'k:' .. owner, (has_budget and math.max(0, cost_held - cost_before) or cost_held) - kept)
    if done and runs then lower(key, 'n:' .. owner, 1) end
  end
  local held_now = 0
  if rate > 0 then
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
      if string.sub(fields[i], 1, 2) == 'h:' then held_now = held_now + tonumber(fields[i + 1]) end
    end
  end
  reply[index - 2] = (rate > 0 and spent + held_now * 1000000 > burst * 1000000) and 1 or 0
  redis.call('PEXPIRE', key, has_budget and 2764800000 or 90000000)
end
if done then
  redis.call('HSET', KEYS[2], 'x', 1)
  redis.call('PEXPIRE', KEYS[2], 600000)
elseif admitted then
  redis.call('HSET', KEYS[2], 'u', whole(used), 'e', whole(cost))
end
return reply
