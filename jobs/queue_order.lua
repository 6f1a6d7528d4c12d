-- Who is next: of an engine's lanes the most urgent, of its tenants the one with the least virtual
-- time, of their jobs the oldest, and of that one a unit. Runs after queue_base.lua.

local function lane_name(f) return f[2] .. '|' .. f[3] end

local function activate(j)
  local f = get(j, 'state', 'priority', 'engine', 'tenant', 'seq')
  if f[1] ~= 'run' then return end
  local lane = lane_name(f)
  call('ZADD', P .. 'fifo:' .. lane .. '|' .. f[4], f[5], j)
  if call('ZSCORE', of('lane', lane), f[4]) then return end
  call('HSETNX', P .. 'passed', lane, int(now))
  -- Idle time earns no credit: a tenant (re)joins at the lane's clock, which outlives an empty lane.
  local parked = call('HMGET', of('parked', lane), f[4], '|clock')
  call('ZADD', of('lane', lane), math.max(tonumber(parked[1] or 0), tonumber(parked[2] or 0)), f[4])
end

local function deactivate(j)
  local f = get(j, 'state', 'priority', 'engine', 'tenant')
  if not f[2] then return end
  local lane = lane_name(f)
  local fifo = P .. 'fifo:' .. lane .. '|' .. f[4]
  call('ZREM', fifo, j)
  if call('EXISTS', fifo) == 1 then return end
  local time = call('ZSCORE', of('lane', lane), f[4])
  if time then
    call('HSET', of('parked', lane), f[4], time)
    call('PEXPIRE', of('parked', lane), PARKED_MS)
    call('ZREM', of('lane', lane), f[4])
  end
  if call('EXISTS', of('lane', lane)) == 0 then call('HDEL', P .. 'passed', lane) end
end

-- The lanes of an engine, each with the time since when it has had work and was passed over.
local function lanes_of(engine)
  local names, lanes = {}, {}
  for priority = 0, 9 do names[priority + 1] = priority .. '|' .. engine end
  for i, since in ipairs(call('HMGET', P .. 'passed', unpack(names))) do
    -- After the clock went back nobody was passed over in what is to come.
    if tonumber(since or 0) > now then call('HSET', P .. 'passed', names[i], int(now)) end
    lanes[i] = { name = names[i], priority = i - 1, since = math.min(tonumber(since or now), now) }
  end
  return lanes
end

-- The most urgent lane that is not spent; of two, the one that had to grow old for it.
local function next_lane(lanes)
  local best, highest
  for _, lane in ipairs(lanes) do
    local rank = lane.priority + math.floor((now - lane.since) / AGE_MS)
    if not lane.spent and (not best or rank > highest) then best, highest = lane, rank end
  end
  return best
end

-- It gave a unit: it is as old as new.
local function served(lane)
  if lane.fresh then return end
  lane.since, lane.fresh = now, true
  call('HSET', P .. 'passed', lane.name, int(now))
end

-- What a claim takes of its tenant's share: device-seconds over weight.
local function charge(lane, tenant, device_seconds)
  local weight = tonumber(call('HGET', P .. 'tenant_weight', tenant) or 1)
  call('HSET', of('parked', lane), '|clock', call('ZSCORE', of('lane', lane), tenant))
  call('PEXPIRE', of('parked', lane), PARKED_MS)
  call('ZINCRBY', of('lane', lane), device_seconds / weight, tenant)
end

-- A claim took `estimated` images' worth, and the device spent so many seconds: the rest is given
-- back, or taken. Where the tenant is alone, the lane's clock goes with it: who joins begins level.
local function correct(j, estimated, device_seconds)
  local f = get(j, 'state', 'priority', 'engine', 'tenant', 'unit_cost')
  local lane, tenant = lane_name(f), f[4]
  local weight = tonumber(call('HGET', P .. 'tenant_weight', tenant) or 1)
  local more = (device_seconds - estimated * tonumber(f[5])) / weight
  if more == 0 then return end
  if call('ZSCORE', of('lane', lane), tenant) then
    local time = call('ZINCRBY', of('lane', lane), more, tenant)
    if call('ZCARD', of('lane', lane)) == 1 then call('HSET', of('parked', lane), '|clock', time) end
  elseif call('HEXISTS', of('parked', lane), tenant) == 1 then
    call('HINCRBYFLOAT', of('parked', lane), tenant, more)
  end
end

-- The tenant with the least virtual time that may hold one more unit.
local function next_tenant(lane)
  local first, many = 0, 4
  while first < TENANTS_ALL do
    local tenants = call('ZRANGE', of('lane', lane), first, first + many - 1)
    if #tenants == 0 then return nil end
    -- Mostly the first one may.
    first, many = first + many, TENANTS_MAX
    local caps = call('HMGET', P .. 'tenant_cap', unpack(tenants))
    local held = call('HMGET', P .. 'tenant_units', unpack(tenants))
    for i, tenant in ipairs(tenants) do
      local cap = tonumber(caps[i] or 0)
      if cap == 0 or tonumber(held[i] or 0) < cap then return tenant end
    end
  end
end

-- A whole shard, or a part that was made so that several could end the job together.
local function sound(j, u)
  return not string.find(u, ':', 1, true) or call('SISMEMBER', of('tail', j), u) == 1
end

-- The last shards of a job, fewer than the renderers at work on its engine, are handed out in parts of
-- whole batches, so that no one renderer holds up its end. Returns the unit to hand out first.
local function tailed(j, k, left)
  local f = get(j, 'engine', 'batch_images', 'cut')
  local working, batch = tonumber(call('HGET', P .. 'working', f[1]) or 1), tonumber(f[2])
  local first, stop = span(j, int(k))
  local batches = math.ceil((stop - first) / batch)
  local parts = math.min(math.ceil(working / left), batches)
  if parts < 2 then
    -- Where a limit cuts the last shard, the rest of it may follow: it is a part as well.
    if f[3] ~= '1' or left > 1 then return int(k) end
    parts = 1
  end
  local step = math.ceil(batches / parts) * batch
  call('HSET', of('split', j), k, int(stop - first))
  for a = first, stop - 1, step do
    local u = int(k) .. ':' .. int(a) .. '-' .. int(math.min(a + step, stop))
    call('SADD', of('tail', j), u)
    -- What is handed out now does not wait.
    if a > first then call('ZADD', of('retry', j), 0, u) end
  end
  return int(k) .. ':' .. int(first) .. '-' .. int(math.min(first + step, stop))
end

-- A unit of the job to hand out, and whether asking again may find one.
local function next_unit(j)
  local due = call('ZRANGEBYSCORE', of('retry', j), '-inf', now, 'LIMIT', 0, 1)[1]
  if due then
    call('ZREM', of('retry', j), due)
    return due, true
  end
  local f, bits = get(j, 'cursor', 'shards'), of('bits', j)
  local cursor, shards = tonumber(f[1]), tonumber(f[2])
  for _ = 1, SKIP_MAX do
    -- A restored job may begin with millions of finished shards: let BITPOS leap over them.
    if cursor % 8 == 0 then cursor = math.max(cursor, call('BITPOS', bits, 0, cursor / 8)) end
    if cursor >= shards then break end
    local k = cursor
    cursor = cursor + 1
    -- A split shard is handed out in parts only.
    if call('GETBIT', bits, k) == 0 and call('HEXISTS', of('split', j), k) == 0 then
      call('HSET', job_key(j), 'cursor', int(cursor))
      return tailed(j, k, shards - k), true
    end
  end
  call('HSET', job_key(j), 'cursor', int(math.min(cursor, shards)))
  return nil, cursor < shards
end
