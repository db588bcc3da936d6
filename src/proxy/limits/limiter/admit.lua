-- Takes all claims of one request, or none. The same arithmetic as in memory (policy/limits), by the server's clock.
--
-- KEYS  owners, reservation, one cell a claim
-- ARGV  owner, lease in ms (0: only look), then for each claim:
--       tokens, tokens a minute, burst, debt (0 a minute: no token limit), requests a minute, concurrent (-1: takes no
--       place of those), cost, cost per day, cost per month (0: no such limit), 1 where a debt refuses it though it asks
--       for no tokens
-- Reply proxies alive, 0 or the claim that refuses, the cap (1 tokens, 2 too large, 3 requests, 4 concurrent, 5 day,
--       6 month, 7 day but only for what is held, 8 month likewise), ms to wait, then for each claim: tokens left, ms until
--       all are, requests left, ms until all are, tokens spent, tokens held, cost held, cost of the day, of the month
--
-- A cell is a hash: s spent (millionths of a token) at t (us), d due time of the next request (us); by owner h: held,
-- n: running, k: cost held; by slot D and M: cost. What a dead owner holds is not counted.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local owner = ARGV[1]
local looks_only = ARGV[2] == '0'
if not looks_only then redis.call('ZADD', KEYS[1], now + ARGV[2] * 1000, owner) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now))
local alive, nodes = {}, 0
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  alive[name] = true
  nodes = nodes + 1
end

local DAY, MONTH, SLOTS = 1800, 54000, 48
local day_slot, month_slot = math.floor(clock[1] / DAY), math.floor(clock[1] / MONTH)

local function read(key)
  local cell = { spent = 0, at = now, due = false, held = 0, running = 0, cost_held = 0, day = 0, month = 0, gone = {} }
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, value = fields[i], tonumber(fields[i + 1])
    local kind = string.sub(name, 1, 1)
    if name == 's' then cell.spent = value
    elseif name == 't' then cell.at = value
    elseif name == 'd' then cell.due = value
    elseif kind == 'D' or kind == 'M' then
      local slot = tonumber(string.sub(name, 2))
      local first = (kind == 'D' and day_slot or month_slot) - SLOTS
      if slot < first then cell.gone[#cell.gone + 1] = name
      elseif kind == 'D' then cell.day = cell.day + value
      else cell.month = cell.month + value end
    elseif not alive[string.sub(name, 3)] then cell.gone[#cell.gone + 1] = name
    elseif kind == 'h' then cell.held = cell.held + value
    elseif kind == 'n' then cell.running = cell.running + value
    elseif kind == 'k' then cell.cost_held = cell.cost_held + value end
  end
  return cell
end

-- How long until a budget has room again: the wait in ms.
local function budget_wait(key, kind, length, slot, excess)
  local left = 0
  for at = slot - SLOTS, slot do
    left = left + (tonumber(redis.call('HGET', key, kind .. at)) or 0)
    if left >= excess then return ((at + SLOTS + 1) * length * 1000000 - now) / 1000 end
  end
  return SLOTS * length * 1000
end

local cells, refusing, cap, wait = {}, 0, 0, -1
local function refuse(index, kind, ms)
  -- Of several the longest; a wait below zero is never.
  if refusing ~= 0 and (wait < 0 or (ms >= 0 and ms <= wait)) then return end
  refusing, cap, wait = index, kind, ms
end

for index = 3, #KEYS do
  local base = 3 + (index - 3) * 10
  local a = {}
  for i = 0, 9 do a[i] = tonumber(ARGV[base + i]) end
  local tokens, rate, burst, debt, rpm, concurrent, cost, per_day, per_month =
    a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]
  local cell = read(KEYS[index])
  cell.claim = a
  cells[index] = cell
  local number = index - 2
  if rate > 0 then
    cell.spent = math.max(0, cell.spent - math.floor(rate * math.max(0, now - cell.at) / 60))
    if tokens > burst + debt then
      refuse(number, 2, -1)
    elseif tokens > 0 or a[9] == 1 then
      local over = cell.spent + (cell.held + math.min(tokens, burst) - burst) * 1000000
      if over > 0 then refuse(number, 1, math.max(100, math.min(over, cell.spent) * 60 / rate / 1000)) end
    end
  end
  if concurrent > 0 and cell.running >= concurrent then refuse(number, 4, 1000) end
  for _, budget in ipairs({ { per_day, cell.day, 5, 'D', DAY, day_slot }, { per_month, cell.month, 6, 'M', MONTH, month_slot } }) do
    local most, spent = budget[1], budget[2]
    local asked, taken = math.min(cost, most), spent + cell.cost_held
    if most > 0 and (spent + asked > most or spent >= most) then
      local excess = math.max(1, spent + asked - most)
      refuse(number, budget[3], budget_wait(KEYS[index], budget[4], budget[5], budget[6], excess))
    elseif most > 0 and (taken + asked > most or taken >= most) then
      refuse(number, budget[3] + 2, 1000)
    end
  end
  if rpm > 0 then
    local every = 60000000 / rpm
    local due = cell.due or now
    local earliest = due - every * (rpm - 1)
    if now < earliest then refuse(number, 3, (earliest - now) / 1000) end
    cell.next_due = math.max(due, now) + every
  end
end

local takes = refusing == 0 and not looks_only
local reply = { nodes, refusing, cap, math.ceil(wait) }
local function whole(value) return string.format('%.0f', value) end
for index = 3, #KEYS do
  local cell, key = cells[index], KEYS[index]
  local tokens, rate, burst, rpm, cost = cell.claim[0], cell.claim[1], cell.claim[2], cell.claim[4], cell.claim[6]
  if #cell.gone > 0 then redis.call('HDEL', key, unpack(cell.gone)) end
  if takes then
    if rate > 0 then
      cell.held = cell.held + tokens
      redis.call('HSET', key, 's', whole(cell.spent), 't', whole(now))
      redis.call('HINCRBY', key, 'h:' .. owner, whole(tokens))
    end
    if cell.claim[5] >= 0 then redis.call('HINCRBY', key, 'n:' .. owner, 1) end
    if cost > 0 then redis.call('HINCRBY', key, 'k:' .. owner, whole(cost)) end
    if rpm > 0 then
      cell.due = cell.next_due
      redis.call('HSET', key, 'd', whole(cell.due))
    end
    -- As long as the longest request may hold it; what is spent and drained sooner goes when it is settled.
    local has_budget = cell.claim[7] > 0 or cell.claim[8] > 0
    redis.call('PEXPIRE', key, has_budget and 2764800000 or 90000000)
  end
  local every = rpm > 0 and 60000000 / rpm or 1
  local busy = math.max(0, (cell.due or now) - now)
  reply[#reply + 1] = rate > 0 and math.max(0, math.floor(burst - cell.held - cell.spent / 1000000)) or 0
  reply[#reply + 1] = rate > 0 and math.ceil(cell.spent * 60 / rate / 1000) or 0
  reply[#reply + 1] = rpm > 0 and math.max(0, math.floor((every * rpm - busy) / every + 0.000001)) or 0
  reply[#reply + 1] = math.ceil(busy / 1000)
  reply[#reply + 1] = math.ceil(cell.spent / 1000000)
  reply[#reply + 1] = cell.held
  reply[#reply + 1] = cell.cost_held
  reply[#reply + 1] = cell.day
  reply[#reply + 1] = cell.month
end
if takes then
  redis.call('HSET', KEYS[2], 'a', 1, 'u', 0, 'e', 0)
  redis.call('PEXPIRE', KEYS[2], 90000000)
end
return reply
