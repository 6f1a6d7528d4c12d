-- What the ops are made of: leases, and what became of a unit.

-- ---- leases ----

-- Who holds a unit: token, worker, last progress ('' unknown, '-' claimed ahead), images, and the
-- milliseconds of the device that a renewal told.
local function own(j, u, ...) call('HSET', P .. 'owners', j .. '|' .. u, table.concat({ ... }, '|')) end

local function lease(j, u, one, worker, ms, news, again)
  local a, b = span(j, u)
  -- Tokens rise even when the clock goes back or Redis forgot the last one.
  local token = int(math.max(tonumber(call('GET', P .. 'fence') or 0) + 1, now * 1000))
  call('SET', P .. 'fence', token)
  own(j, u, token, worker, news, int(b - a), 0)
  call('ZADD', P .. 'leases', now + ms, j .. '|' .. u)
  call('HINCRBY', job_key(j), 'units', 1)
  call('HINCRBY', job_key(j), 'leased', int(b - a))
  call('HSETNX', job_key(j), 'first_claim_ms', int(now))
  hold(one.tenant, 1, one.cap)
  event('claimed', j, u, 'worker', worker)
  return { job = j, unit = u, first = int(a), stop = int(b), token = token,
    attempt = int((again and call('HGET', of('crashes', j), u) or 0) + 1),
    sound = sound(j, u) }
end

-- What `own` wrote; nil if nobody holds the unit. The release before wrote no milliseconds.
local function owner(j, u)
  local o = call('HGET', P .. 'owners', j .. '|' .. u)
  if o then return string.match(o .. '|0', '^(%d+)|([^|]*)|([%d-]*)|(%d+)|(%d+)') end
end

-- End a lease, whoever holds it; counters move only if there was one. Returns what owner returns.
local function unlease(j, u)
  local token, worker, progress, images, told = owner(j, u)
  if not token then return nil end
  call('HDEL', P .. 'owners', j .. '|' .. u)
  call('ZREM', P .. 'leases', j .. '|' .. u)
  local f = get(j, 'tenant', 'state')
  if not f[1] then return token, worker, progress, images, told end
  call('HINCRBY', job_key(j), 'leased', '-' .. images)
  hold(f[1], -1)
  if call('HINCRBY', job_key(j), 'units', -1) == 0 and ending(f[2]) then
    call('ZADD', P .. 'finishing', now, j)
  end
  return token, worker, progress, images, told
end

-- Milliseconds of the device that nothing came of: of a unit that was given back, or died with its process.
local function waste(j, ms)
  if tonumber(ms) > 0 then call('HINCRBY', job_key(j), 'wasted_ms', int(ms)) end
end

local function requeue(j, u, at)
  call('ZADD', of('retry', j), at, u)
  if at <= now then activate(j) else call('ZADD', P .. 'delayed', 'LT', at, j) end
end

-- ---- what became of a unit ----

local function drop_work(j)
  deactivate(j)
  call('DEL', of('retry', j), of('crashes', j), of('releases', j))
  call('ZREM', P .. 'delayed', j)
end

local function book(j, done, failed, dead)
  call('HINCRBY', job_key(j), 'done', int(done))
  call('HINCRBY', job_key(j), 'failed', int(failed))
  call('HINCRBY', job_key(j), 'dead', int(dead))
  call('HSET', job_key(j), 'last_progress_ms', int(now))
end

-- Too many images failed: the job stops. All are accounted for: it is fin. Otherwise it goes on.
local function conclude(j)
  local f = get(j, 'done', 'failed', 'dead', 'images', 'state', 'restoring', 'max_failed', 'units')
  if not live(f[5]) or f[6] == '1' then return end
  local lost = f[2] + f[3]
  local spent = f[7] and lost > tonumber(f[7])
  if not spent and f[1] + lost < tonumber(f[4]) then return end
  drop_work(j)
  call('HSET', job_key(j), 'state', spent and 'stop' or 'fin')
  if tonumber(f[8]) == 0 then call('ZADD', P .. 'finishing', now, j) end
  event('state', j, '', 'state', spent and 'stop' or 'fin')
end

-- Images of a shard were booked: its bit is set with the last of them.
local function settle(j, top, images)
  local left = call('HGET', of('split', j), top)
  if left then left = call('HINCRBY', of('split', j), top, int(-images)) end
  if not left or left <= 0 then call('SETBIT', of('bits', j), top, 1) end
  conclude(j)
end

-- [a,p) was fine, [p,p+batch) is suspect, the rest unseen; without news, or none that helps, halves.
local function parts(a, b, progress, batch)
  local p = tonumber(progress)
  if p and p >= a and p < b then
    local q = math.min(p + batch, b)
    if q - p < b - a then return { { a, p }, { p, q }, { q, b } } end
  end
  local middle = math.floor((a + b) / 2)
  return { { a, middle }, { middle, b } }
end

local function split(j, u, a, b, top, progress, batch)
  -- Only the whole shard sets its count: a part's images are in it already.
  call('HSETNX', of('split', j), top, int(b - a))
  call('HDEL', of('winners', j), u)
  for _, part in ipairs(parts(a, b, progress, batch)) do
    if part[1] < part[2] then requeue(j, top .. ':' .. int(part[1]) .. '-' .. int(part[2]), now) end
  end
  event('split', j, u)
  return 'split'
end

-- A process died on the unit: again later, in parts, or (a single image) never.
local function crash(j, u, progress, why)
  local f = get(j, 'max_attempts', 'batch_images', 'state')
  if not live(f[3]) then return 'cancelled' end
  local a, b, top = span(j, u)
  -- Parts of a shard that already crashed enough are split at once; a last image gets every attempt.
  local attempts = (sound(j, u) or b - a == 1) and tonumber(f[1]) or 1
  local crashes = call('HINCRBY', of('crashes', j), u, 1)
  if crashes < attempts then
    -- A first death is most often the machine's: the unit is offered at once, later ones wait.
    requeue(j, u, crashes == 1 and 0 or now + math.min(BACKOFF_MAX, 1000 * 2 ^ crashes))
    event('fail', j, u, 'why', why)
    return 'retry'
  end
  call('HDEL', of('crashes', j), u)
  call('HDEL', of('releases', j), u)
  if b - a > 1 then return split(j, u, a, b, int(top), progress, tonumber(f[2])) end
  call('HSET', of('dead', j), int(a) .. '-' .. int(b), why)
  book(j, 0, 0, 1)
  event('dead', j, u, 'why', why)
  settle(j, top, 1)
  return 'dead'
end

local function release(j, u, why)
  local a, b = span(j, u)
  correct(j, b - a, 0)
  requeue(j, u, now)
  event('release', j, u, 'why', why)
  return 'released'
end

-- The process that held the unit died. Where it had not begun the unit, or had rendered it already,
-- another one killed it, and an innocent must not pay for that; in doubt, and in the end, it counts.
local function died(j, u, progress, why)
  if not live(call('HGET', job_key(j), 'state')) then return 'cancelled' end
  local _, b = span(j, u)
  local elsewhere = progress == '-' or (tonumber(progress) or -1) >= b
  if elsewhere and call('HINCRBY', of('releases', j), u, 1) <= RELEASES_MAX then
    return release(j, u, why)
  end
  return crash(j, u, progress, why)
end

local function wake(j)
  call('ZREM', P .. 'delayed', j)
  -- After the clock went back, no retry may lie further ahead than the longest wait.
  for _, u in ipairs(call('ZRANGEBYSCORE', of('retry', j), now + BACKOFF_MAX + 1, '+inf', 'LIMIT', 0, 32)) do
    call('ZADD', of('retry', j), now, u)
  end
  if call('ZCOUNT', of('retry', j), '-inf', now) > 0 then activate(j) end
  local later = call('ZRANGEBYSCORE', of('retry', j), '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if later[2] then call('ZADD', P .. 'delayed', later[2], j) end
end

-- Whatever time makes due: expired leases, retries, closed jobs to forget. Returns leases ended.
local function reap(max, whole)
  for _, k in ipairs(call('ZRANGEBYSCORE', P .. 'leases', now + LEASE_MAX + 1, '+inf', 'LIMIT', 0, max)) do
    call('ZADD', P .. 'leases', now + BACKOFF_MAX, k)
  end
  for _, j in ipairs(call('ZRANGEBYSCORE', P .. 'delayed', now + BACKOFF_MAX + 1, '+inf', 'LIMIT', 0, max)) do
    wake(j)
  end
  local expired = call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, max)
  for _, k in ipairs(expired) do
    local j, u = string.match(k, '^([^|]+)|(.+)$')
    local token, _, progress, _, told = unlease(j, u)
    if token then
      waste(j, told)
      died(j, u, progress, 'lease expired')
    end
    call('ZREM', P .. 'leases', k)
  end
  for _, j in ipairs(call('ZRANGEBYSCORE', P .. 'delayed', '-inf', now, 'LIMIT', 0, max)) do wake(j) end
  -- A claim leaves to the scheduler what nobody waits for.
  for _, k in ipairs(whole and call('ZRANGEBYSCORE', P .. 'closed', '-inf', now, 'LIMIT', 0, max) or {}) do
    local j, tenant = string.match(k, '^([^|]+)|(.+)$')
    call('ZREM', P .. 'jobs', j)
    call('ZREM', of('jobs', tenant), j)
    call('ZREM', P .. 'closed', k)
  end
  return #expired
end
