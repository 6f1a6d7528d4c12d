-- Ops on whole jobs: accepted, steered, read back, closed. Runs after queue_limits.lua.

function ops.submit() -- job tenant engine priority images shard_images max_attempts idempotency sha
  --                     unit_cost batch_images weight cap restoring open_max tenant_max keep_ms
  --                     max_failed ('': any number) cut max_device_ms deadline_ms before_ms
  local j, tenant, engine, priority, images, size, attempts, key, sha = unpack(ARGV, 3, 11)
  local cost, batch, weight, cap, restoring, open_max, tenant_max, keep, max_failed = unpack(ARGV, 12, 20)
  local cut, max_device_ms, deadline_ms, before_ms = unpack(ARGV, 21, 24)
  if key ~= '' then
    local known, known_sha = string.match(call('GET', P .. 'once:' .. tenant .. '|' .. key) or '', '^(.+)|(.-)$')
    if known then return { known_sha == sha and 'duplicate' or 'conflict', known } end
  end
  local existing = call('HGET', job_key(j), 'sha256')
  if existing then return { existing == sha and 'duplicate' or 'conflict', j } end
  local mine = tonumber(call('HGET', P .. 'tenant_jobs', tenant) or 0)
  local room = call('ZCARD', P .. 'open') < tonumber(open_max) and mine < tonumber(tenant_max)
  if restoring == '0' and not room then return { 'full', '' } end
  local seq = call('INCR', P .. 'seq')
  if key ~= '' then call('SET', P .. 'once:' .. tenant .. '|' .. key, j .. '|' .. sha, 'PX', keep) end
  call('HSET', job_key(j), 'state', restoring == '1' and 'pause' or 'run', 'tenant', tenant,
    'engine', engine, 'priority', priority, 'images', images, 'shard_images', size,
    'shards', int(math.ceil(images / size)), 'max_attempts', attempts, 'sha256', sha,
    'unit_cost', cost, 'batch_images', batch, 'restoring', restoring, 'seq', seq,
    'submitted_ms', int(now), 'cursor', 0, 'done', 0, 'failed', 0, 'dead', 0, 'units', 0,
    'leased', 0, 'device_ms', 0, 'cut', cut, 'max_device_ms', max_device_ms,
    'deadline_ms', deadline_ms, 'before_ms', before_ms)
  if max_failed ~= '' then call('HSET', job_key(j), 'max_failed', max_failed) end
  call('HSET', of('tenant', tenant), 'weight', weight, 'cap', cap)
  call('PERSIST', of('tenant', tenant))
  call('SREM', P .. 'capped', tenant)
  hold(tenant, 0)
  call('HINCRBY', P .. 'tenant_jobs', tenant, 1)
  for _, index in ipairs({ P .. 'open', P .. 'jobs', of('jobs', tenant) }) do call('ZADD', index, seq, j) end
  activate(j)
  event('submit', j, '', 'tenant', tenant)
  return { 'ok', j }
end

function ops.state() -- job run|pause|cancel discard ('1': what is done too) -> the state it is in now
  local j, wanted, discard = ARGV[3], ARGV[4], ARGV[5]
  local f = get(j, 'state', 'restoring', 'units')
  if not f[1] then return 'unknown' end
  -- Not once it is being closed: then whoever closes it keeps what is done.
  local open = live(f[1]) or f[1] == 'cancel' and not call('ZSCORE', P .. 'finishing', j)
  if discard == '1' and wanted == 'cancel' and open then call('HSET', job_key(j), 'discard', 1) end
  if f[1] == wanted or not live(f[1]) then return f[1] end
  if f[2] == '1' and wanted ~= 'cancel' then return f[1] end
  if wanted == 'cancel' and tonumber(f[3]) == 0 then call('ZADD', P .. 'finishing', now, j) end
  call('HSET', job_key(j), 'state', wanted)
  if wanted == 'run' then activate(j) else deactivate(j) end
  event('state', j, '', 'state', wanted)
  return wanted
end

function ops.priority() -- job priority
  local j = ARGV[3]
  local before = call('HGET', job_key(j), 'priority')
  if not before then return 'unknown' end
  if before == ARGV[4] then return 'ok' end
  deactivate(j)
  call('HSET', job_key(j), 'priority', ARGV[4])
  activate(j)
  return 'ok'
end

function ops.restore() -- job next_state ('' if more calls follow) (kind unit news)*
  local j, after = ARGV[3], ARGV[4]
  -- The mark makes a second run harmless: parts may be leased by then.
  if call('HGET', job_key(j), 'restoring') ~= '1' then return 'ignored' end
  make_room(j)
  for i = 5, #ARGV, 3 do
    local kind, u, news = unpack(ARGV, i, i + 2)
    local a, b, top = span(j, u)
    if a and call('GETBIT', of('bits', j), top) == 0 then
      local range = int(a) .. '-' .. int(b)
      if u ~= int(top) then
        local first, stop = span(j, int(top))
        call('HSETNX', of('split', j), top, int(stop - first))
      end
      if kind == 'gap' then
        requeue(j, u, now)
      elseif kind == 'dead' and call('HSETNX', of('dead', j), range, news) == 1 then
        book(j, 0, 0, b - a)
        settle(j, top, b - a)
      elseif kind == 'done' and (u == int(top) or call('SADD', of('parts', j), u) == 1) then
        book(j, b - a - news, news, 0)
        settle(j, top, b - a)
      end
    end
  end
  if after ~= '' then
    call('HSET', job_key(j), 'restoring', 0)
    if call('HGET', job_key(j), 'state') == 'pause' then call('HSET', job_key(j), 'state', after) end
    activate(j)
    conclude(j)
  end
  return 'ok'
end

function ops.finish() -- job outcome keep_ms reason ok failed ('': as counted)
  local j, outcome, keep, reason, ok, failed = unpack(ARGV, 3, 8)
  local f = get(j, 'state', 'units', 'tenant', 'outcome', 'dead', 'limit')
  if not f[1] then return 'unknown' end
  if f[1] == 'closed' then return f[4] == outcome and 'duplicate' or 'conflict' end
  local idle = tonumber(f[2]) <= 0
  -- A job may be whole although a limit stopped it: its last units were committed meanwhile.
  local at_limit = f[1] == 'fin' or (f[1] == 'stop' and f[6] and idle)
  local ready = { done = at_limit, stopped = at_limit, failed = true, cancelled = f[1] == 'cancel' and idle }
  if not ready[outcome] then return 'not_ready' end
  drop_work(j)
  call('HSET', job_key(j), 'state', 'closed', 'outcome', outcome, 'finished_ms', int(now), 'reason', reason)
  if ok ~= '' then
    -- What the store holds: units that were committed while the job was ending were not booked.
    local dead = math.min(tonumber(f[5]), tonumber(failed))
    call('HSET', job_key(j), 'done', ok, 'failed', int(failed - dead), 'dead', int(dead))
  end
  call('ZREM', P .. 'open', j)
  call('ZREM', P .. 'finishing', j)
  if call('HINCRBY', P .. 'tenant_jobs', f[3], -1) <= 0 then
    call('HDEL', P .. 'tenant_jobs', f[3])
    call('PEXPIRE', of('tenant', f[3]), PARKED_MS)
  end
  for _, name in ipairs({ 'job', 'bits', 'split', 'parts', 'tail', 'dead', 'winners' }) do
    call('PEXPIRE', of(name, j), keep)
  end
  call('ZADD', P .. 'closed', now + tonumber(keep), j .. '|' .. f[3])
  event('finished', j, '', 'outcome', outcome, unpack(reason ~= '' and { 'reason', reason } or {}))
  return 'ok'
end

function ops.amend() -- job round outcome ('': only the round) reason ok failed
  local j, number, outcome, reason, ok, failed = unpack(ARGV, 3, 8)
  if call('HGET', job_key(j), 'state') ~= 'closed' then return 'unknown' end
  call('HSET', job_key(j), 'round', number)
  if outcome ~= '' then
    call('HSET', job_key(j), 'outcome', outcome, 'reason', reason, 'done', ok, 'failed', failed, 'dead', 0)
  end
  return 'ok'
end
