-- Who is next: of an engine's lanes the most urgent, of its tenants the one with the least virtual
-- time, of their jobs the oldest, and of that one a unit. Runs after queue_base.lua.

-- A tenant has one virtual time: what all its units cost, device-seconds over weight. Each lane counts
-- it from where the tenant joined: its place there is that time and an offset. Places in a lane are in
-- order; what a tenant had elsewhere is added to its place when that comes to the front.

local function lane_name(f) return f[2] .. '|' .. f[3] end

-- A lane's clock is the place of the tenant that it served last: who joins begins there, at the
-- earliest, so idle time earns no credit. It outlives an empty lane.
local function activate(j)
  local f = get(j, 'state', 'priority', 'engine', 'tenant', 'seq')
  if f[1] ~= 'run' then return end
  local lane, tenant = lane_name(f), f[4]
  call('ZADD', P .. 'fifo:' .. lane .. '|' .. tenant, f[5], j)
  if call('ZSCORE', of('lane', lane), tenant) then return end
  call('HSETNX', P .. 'passed', lane, int(now))
  local clock = tonumber(call('HGET', of('clock', lane), 'at') or 0)
  local left = call('HGET', of('parked', lane), tenant) or ''
  local offset, place = string.match(left, '^([^|]+)|(.+)$')
  place = math.max(tonumber(place or clock), clock)
  offset = offset or num(place - (call('HGET', of('tenant', tenant), 'time') or 0))
  call('HSET', of('tenant', tenant), lane, offset)
  call('HDEL', of('parked', lane), tenant)
  call('ZADD', of('lane', lane), num(place), tenant)
end

local function deactivate(j)
  local f = get(j, 'state', 'priority', 'engine', 'tenant')
  if not f[2] then return end
  local lane, tenant = lane_name(f), f[4]
  local fifo = P .. 'fifo:' .. lane .. '|' .. tenant
  call('ZREM', fifo, j)
  if call('EXISTS', fifo) == 1 then return end
  local place, offset = call('ZSCORE', of('lane', lane), tenant), call('HGET', of('tenant', tenant), lane)
  if place then
    call('HSET', of('parked', lane), tenant, offset .. '|' .. place)
    call('PEXPIRE', of('parked', lane), PARKED_MS)
    call('HDEL', of('tenant', tenant), lane)
    call('ZREM', of('lane', lane), tenant)
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

-- The lane's clock: where it is (`at`), what its last unit cost, where it was five to ten minutes ago.
local function clock_of(lane)
  if not lane.clock then
    local f = call('HMGET', of('clock', lane.name), 'at', 'step', 'mark', 'since', 'before')
    lane.clock = { at = tonumber(f[1] or 0), step = tonumber(f[2] or 0), mark = tonumber(f[3] or ''),
      since = tonumber(f[4] or ''), before = tonumber(f[5] or '') }
  end
  return lane.clock
end

-- A tenant whose place has come to the front: what it had elsewhere since is added. Not more than the
-- lane has moved in the last minutes: who alone had an idle engine does not wait for hours because of it.
-- What it was given back elsewhere does not put it before others who waited here.
local function look(lane, tenant, place)
  local f = call('HMGET', of('tenant', tenant), 'time', 'weight', lane.name, 'cap', 'units')
  local time, cap = tonumber(f[1] or 0), tonumber(f[4] or 0)
  local one = { tenant = tenant, time = time, weight = tonumber(f[2] or 1), place = place,
    cap = cap, room = cap > 0 and cap - (f[5] or 0) or math.huge }
  local whole = time + tonumber(f[3] or place - time)
  if math.abs(whole - place) < LEVEL then return one end
  local clock = clock_of(lane)
  local most = clock.before and math.max(clock.at - clock.before, 2 * clock.step) or math.huge
  one.place = math.max(math.min(whole, math.max(place, clock.at + most)), math.min(place, clock.at))
  if one.place ~= whole then call('HSET', of('tenant', tenant), lane.name, num(one.place - time)) end
  return one
end

local function before(one, other) -- at the same place by name
  return one.place < other.place or one.place == other.place and one.tenant < other.tenant
end

-- The tenant that is next and may hold one more unit.
local function next_tenant(lane)
  local first, many, best, moved = 0, 4, nil, {}
  while first < TENANTS_ALL do
    local found, names = call('ZRANGE', of('lane', lane.name), first, first + many - 1, 'WITHSCORES'), {}
    for i = 1, #found, 2 do names[#names + 1] = found[i] end
    if #names == 0 then break end
    -- Mostly the first one may.
    first, many = first + many, TENANTS_MAX
    for i, capped in ipairs(call('SMISMEMBER', P .. 'capped', unpack(names))) do
      local place = tonumber(found[2 * i])
      if best and before(best, { tenant = names[i], place = place }) then first = TENANTS_ALL break end
      local one = capped == 0 and look(lane, names[i], place)
      if one and one.place ~= place then moved[#moved + 1] = one end
      if one and (not best or before(one, best)) then best = one end
    end
  end
  for _, one in ipairs(moved) do call('ZADD', of('lane', lane.name), num(one.place), one.tenant) end
  return best
end

-- What a claim takes of its tenant's share: device-seconds over weight.
local function charge(lane, one, device_seconds)
  local more, clock = device_seconds / one.weight, clock_of(lane)
  clock.at, clock.step = one.place, more
  if not clock.since or now - clock.since >= AGE_MS or clock.since > now then
    clock.before, clock.mark, clock.since = clock.mark, one.place, now
    if clock.before then call('HSET', of('clock', lane.name), 'before', num(clock.before)) end
    call('HSET', of('clock', lane.name), 'mark', num(one.place), 'since', int(now))
    call('PEXPIRE', of('clock', lane.name), PARKED_MS)
  end
  call('HSET', of('clock', lane.name), 'at', num(one.place), 'step', num(more))
  call('HSET', of('tenant', one.tenant), 'time', num(one.time + more))
  call('ZINCRBY', of('lane', lane.name), num(more), one.tenant)
end

-- A claim took `estimated` images' worth, and the device spent so many seconds: the rest is given
-- back, or taken. Where the tenant is alone, the lane's clock goes with it: who joins begins level.
local function correct(j, estimated, device_seconds)
  local f = get(j, 'state', 'priority', 'engine', 'tenant', 'unit_cost')
  local lane, tenant = lane_name(f), f[4]
  local t = call('HMGET', of('tenant', tenant), 'time', 'weight', lane)
  local more = (device_seconds - estimated * f[5]) / (t[2] or 1)
  if more == 0 then return end
  call('HSET', of('tenant', tenant), 'time', num((t[1] or 0) + more))
  if t[3] then
    local place = call('ZINCRBY', of('lane', lane), num(more), tenant)
    if call('ZCARD', of('lane', lane)) == 1 then
      call('HSET', of('clock', lane), 'at', place)
      call('PEXPIRE', of('clock', lane), PARKED_MS)
    end
    return
  end
  local offset, place = string.match(call('HGET', of('parked', lane), tenant) or '', '^([^|]+)|(.+)$')
  if place then call('HSET', of('parked', lane), tenant, offset .. '|' .. num(place + more)) end
end

-- Units that a tenant holds, over all engines. Who holds as many as it may is passed over.
local function hold(tenant, more, cap)
  local units = call('HINCRBY', of('tenant', tenant), 'units', more)
  cap = cap or tonumber(call('HGET', of('tenant', tenant), 'cap') or 0)
  if cap > 0 then call(units >= cap and 'SADD' or 'SREM', P .. 'capped', tenant) end
end

-- A whole shard, or a part that was made so that several could end the job together.
local function sound(j, u)
  return not string.find(u, ':', 1, true) or call('SISMEMBER', of('tail', j), u) == 1
end

-- Renderers of an engine without a unit that waits for them, but for the shards that are left of this job.
local function spare(engine, left)
  local told = call('HGET', P .. 'working', engine) or ''
  local renderers, waiting = string.match(told, '^(%d+)|(%d+)$')
  return renderers and renderers - math.max(0, waiting - left) or 1
end

-- The last shards of a job, where renderers would be without work, are handed out in parts, so that no one
-- renderer holds up its end: of whole batches, three at least, as a unit costs something by itself, and
-- no more than the tenant may hold (`room`). Returns the unit to hand out first.
local function tailed(j, k, left, room)
  local f = get(j, 'engine', 'batch_images', 'cut')
  local free, batch = spare(f[1], left), tonumber(f[2])
  -- Where a limit cuts the last shard, the rest of it may follow: it is a part as well.
  local cut = f[3] == '1' and left == 1
  if free <= left and not cut then return int(k) end
  local first, stop = span(j, int(k))
  local batches = math.ceil((stop - first) / batch)
  local parts = math.max(1, math.min(math.ceil(free / left), math.floor(batches / 3), room))
  if parts == 1 and not cut then return int(k) end
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

-- A bit for each shard, made room for at once, when the first is handed out: Redis doubles what grows.
local function make_room(j)
  local bits, shards = of('bits', j), get(j, 'shards')[1]
  if call('EXISTS', bits) == 0 then call('SET', bits, string.rep('\0', math.ceil(shards / 8))) end
end

-- A unit of the job to hand out, whether asking again may find one, and whether somebody had it before.
local function next_unit(j, room)
  local due = call('ZRANGEBYSCORE', of('retry', j), '-inf', now, 'LIMIT', 0, 1)[1]
  if due then
    call('ZREM', of('retry', j), due)
    return due, true, true
  end
  local f, bits = get(j, 'cursor', 'shards'), of('bits', j)
  local cursor, shards = tonumber(f[1]), tonumber(f[2])
  if cursor == 0 then make_room(j) end
  for _ = 1, SKIP_MAX do
    -- A restored job may begin with millions of finished shards: let BITPOS leap over them.
    if cursor % 8 == 0 then cursor = math.max(cursor, call('BITPOS', bits, 0, cursor / 8)) end
    if cursor >= shards then break end
    local k = cursor
    cursor = cursor + 1
    -- A split shard is handed out in parts only.
    if call('GETBIT', bits, k) == 0 and call('HEXISTS', of('split', j), k) == 0 then
      call('HSET', job_key(j), 'cursor', int(cursor))
      return tailed(j, k, shards - k, room), true
    end
  end
  call('HSET', job_key(j), 'cursor', int(math.min(cursor, shards)))
  return nil, cursor < shards
end
