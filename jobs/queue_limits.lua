-- Ops on the limits of a job: it is stopped at one, and let go on beyond it. Runs after queue_steps.lua.

-- A limit is reached: no unit is handed out any more, those in flight are given back at their next
-- batch, and the job is closed with what it has.
function ops.stop() -- job limit -> the state it is in now
  local j, limit = ARGV[3], ARGV[4]
  local f = get(j, 'state', 'units', 'restoring')
  if not f[1] then return 'unknown' end
  if not live(f[1]) or f[3] == '1' then return f[1] end
  drop_work(j)
  call('HSET', job_key(j), 'state', 'stop', 'limit', limit)
  if tonumber(f[2]) == 0 then call('ZADD', P .. 'finishing', now, j) end
  event('state', j, '', 'state', 'stop')
  return 'stop'
end

-- More images are let through. The shard in which the old limit fell was handed out as a part: what
-- was cut off of it becomes another one.
local function let_through(j, images, cut, max_failed)
  local f = get(j, 'images', 'shard_images')
  local old, new, size = tonumber(f[1]), tonumber(images), tonumber(f[2])
  if new <= old then return end
  local k = math.floor(old / size)
  call('HSET', job_key(j), 'images', int(new), 'shards', int(math.ceil(new / size)), 'cut', cut)
  if max_failed ~= '' then call('HSET', job_key(j), 'max_failed', max_failed) end
  if old % size > 0 and call('HEXISTS', of('split', j), int(k)) == 1 then
    local stop = math.min((k + 1) * size, new)
    local u = int(k) .. ':' .. int(old) .. '-' .. int(stop)
    call('HINCRBY', of('split', j), int(k), int(stop - old))
    call('SETBIT', of('bits', j), int(k), 0)
    call('SADD', of('tail', j), u)
    call('ZADD', of('retry', j), 0, u)
  end
  activate(j)
end

function ops.limit() -- job images cut max_device_ms deadline_ms max_failed -> the state it is in
  local j, images, cut, device_ms, deadline_ms, max_failed = unpack(ARGV, 3, 8)
  local f = get(j, 'state', 'restoring')
  if not f[1] then return 'unknown' end
  if f[2] == '1' then return 'restoring' end
  if not live(f[1]) then return f[1] end
  call('HSET', job_key(j), 'max_device_ms', device_ms, 'deadline_ms', deadline_ms)
  let_through(j, images, cut, max_failed)
  return f[1]
end

-- A closed job, so that it may be read back from the store as one that goes on.
function ops.forget() -- job -> the state it was in
  local j = ARGV[3]
  local f = get(j, 'state', 'tenant')
  if f[1] ~= 'closed' then return f[1] or 'unknown' end
  for _, name in ipairs({ 'job', 'bits', 'split', 'parts', 'tail', 'dead', 'winners' }) do
    call('DEL', of(name, j))
  end
  for _, index in ipairs({ P .. 'jobs', of('jobs', f[2]) }) do call('ZREM', index, j) end
  call('ZREM', P .. 'closed', j .. '|' .. f[2])
  return 'closed'
end
