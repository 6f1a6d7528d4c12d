-- The shard queue: every step that must be atomic, one op per call. docs/queue.md has the picture.
--
-- Runs after queue_limits.lua, in one script with it. Rules of all its files: check before the first
-- write (a failing script keeps its earlier writes); every loop is bounded; every op may run twice
-- (clients resend when a reply is lost).

local ops = {}

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

function ops.claim() -- worker nonce engine want lease_ms news ('' or '-') images -> JSON list of leases
  local worker, nonce, engine, want, ms = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
  local memo, mine = call('GET', of('claimed', worker)) or '', #nonce .. '|' .. nonce
  if string.sub(memo, 1, #mine) == mine then return string.sub(memo, #mine + 1) end
  reap(32)
  local out, limit = {}, tonumber(ARGV[9] or '')
  local room, lanes = limit or math.huge, lanes_of(engine)
  for _ = 1, want * 4 + 640 do
    local lane = #out < want and room > 0 and next_lane(lanes)
    if not lane then break end
    local one = next_tenant(lane)
    local j = one and call('ZRANGE', P .. 'fifo:' .. lane.name .. '|' .. one.tenant, 0, 0)[1]
    local u, more, again
    if j then u, more, again = next_unit(j, one.room) else lane.spent = true end
    if u then
      local given = lease(j, u, one, worker, ms, ARGV[8], again)
      local images = given.stop - given.first
      charge(lane, one, images * tonumber(call('HGET', job_key(j), 'unit_cost')))
      served(lane)
      out[#out + 1] = given
      room = room - images
      -- Nothing beside one on which a process died.
      if limit and (tonumber(given.attempt) > 1 or not given.sound) then room = 0 end
    elseif j and not more then
      deactivate(j)
      local later = call('ZRANGE', of('retry', j), 0, 0, 'WITHSCORES')[2]
      if later then call('ZADD', P .. 'delayed', 'LT', later, j) end
    end
  end
  local reply = #out > 0 and cjson.encode(out) or '[]'
  call('SET', of('claimed', worker), mine .. reply, 'PX', MEMO_MS)
  return reply
end

function ops.renew() -- worker lease_ms (job unit token progress device_ms)* -> ok|pause|cancel|lost each
  local answers = {}
  for i = 5, #ARGV, 5 do
    local j, u, token, progress, device_ms = unpack(ARGV, i, i + 4)
    local held, worker, before, images, told = owner(j, u)
    local state = call('HGET', job_key(j), 'state')
    local answer = 'lost'
    if held == token and (live(state) or ending(state)) then
      -- A lease of a job that ends is kept until its renderer gives it up: what it commits before
      -- that belongs to the dataset, and the job must not be closed under it.
      answer = ending(state) and 'cancel' or state == 'pause' and 'pause' or 'ok'
      call('ZADD', P .. 'leases', now + tonumber(ARGV[4]), j .. '|' .. u)
      local further = progress ~= '' and tonumber(progress) > (tonumber(before) or -1)
      if further then call('HSET', job_key(j), 'last_progress_ms', int(now)) end
      if further or tonumber(device_ms) > tonumber(told) then
        own(j, u, token, worker, further and progress or before, images, int(math.max(device_ms, told)))
      end
    elseif held == token then
      unlease(j, u)
    end
    answers[#answers + 1] = answer
  end
  return answers
end

function ops.win() -- job unit token -> the winner's token, '' for a stale one
  local j, u, token = ARGV[3], ARGV[4], ARGV[5]
  local winner = call('HGET', of('winners', j), u)
  if winner then return winner end
  if owner(j, u) ~= token then return '' end
  call('HSET', of('winners', j), u, token)
  return token
end

function ops.done() -- job unit token arbiter failed device_ms
  local j, u, token, arbiter, failed, device_ms = unpack(ARGV, 3, 8)
  local a, b, top = span(j, u)
  if not a then return 'unknown' end
  local whole, f = u == int(top), get(j, 'state', 'cursor')
  -- Its images went to parts, or were given up: the whole must not be counted beside them.
  if (whole and call('HEXISTS', of('split', j), top) == 1)
    or call('HEXISTS', of('dead', j), int(a) .. '-' .. int(b)) == 1 then return 'superseded' end
  if (whole and call('GETBIT', of('bits', j), top) == 1)
    or (not whole and call('SISMEMBER', of('parts', j), u) == 1) then
    unlease(j, u)
    return 'duplicate'
  end
  local held = owner(j, u)
  if held ~= token and arbiter ~= 's3' then return 'fenced' end
  if not live(f[1]) then
    if held == token then
      unlease(j, u)
      correct(j, b - a, device_ms / 1000)
      call('HINCRBY', job_key(j), 'device_ms', device_ms)
    end
    return 'cancelled'
  end
  -- Live: leased, waiting for a retry, or (after a restore) not handed out yet.
  if not held and not call('ZSCORE', of('retry', j), u) and not (whole and top >= tonumber(f[2])) then
    return 'superseded'
  end
  unlease(j, u)
  if held == token then correct(j, b - a, device_ms / 1000) end
  if tonumber(device_ms) > 0 then call('HINCRBY', job_key(j), 'timed', int(b - a)) end
  call('ZREM', of('retry', j), u)
  call('HDEL', of('crashes', j), u)
  call('HDEL', of('releases', j), u)
  if not whole then call('SADD', of('parts', j), u) end
  call('HDEL', of('winners', j), u)
  call('HINCRBY', job_key(j), 'device_ms', device_ms)
  failed = math.min(tonumber(failed), b - a)
  book(j, b - a - failed, failed, 0)
  event('done', j, u)
  settle(j, top, b - a)
  return held == token and 'ok' or 'late'
end

function ops.fail() -- job unit token release|crash reason progress device_ms
  local j, u, token, kind, why, news, device_ms = unpack(ARGV, 3, 9)
  local held, _, progress, _, told = owner(j, u)
  if held ~= token then return 'lost' end
  unlease(j, u)
  waste(j, math.max(device_ms, told))
  if not live(call('HGET', job_key(j), 'state')) then
    local a, b = span(j, u)
    if a and kind == 'release' then correct(j, b - a, 0) end
    return 'cancelled'
  end
  -- Who says where it was says that the unit broke it; who does not has only seen it die.
  if kind == 'crash' and news == '' then return died(j, u, progress, why) end
  if kind == 'crash' or call('HINCRBY', of('releases', j), u, 1) > RELEASES_MAX then
    return crash(j, u, news ~= '' and news or progress, why)
  end
  return release(j, u, why)
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

function ops.heartbeat() -- worker ttl_ms (name value)*; ttl 0: the renderer left
  local worker, ttl = ARGV[3], tonumber(ARGV[4])
  call('DEL', of('renderer', worker))
  call('ZREMRANGEBYSCORE', P .. 'renderers', '-inf', now)
  if ttl == 0 then return call('ZREM', P .. 'renderers', worker) end
  call('HSET', of('renderer', worker), '|beat_ms', int(now), unpack(ARGV, 5))
  call('PEXPIRE', of('renderer', worker), ttl)
  return call('ZADD', P .. 'renderers', now + ttl, worker)
end

function ops.scheduler_beat()
  return call('SET', P .. 'scheduler', int(now))
end

function ops.scheduler_age()
  local beat = call('GET', P .. 'scheduler')
  return beat and math.max(0, now - tonumber(beat)) or -1
end

function ops.emit() -- nonce type job (name value)*
  if not call('SET', P .. 'emitted:' .. ARGV[3], 1, 'PX', MEMO_MS, 'NX') then return 0 end
  event(ARGV[4], ARGV[5], '', unpack(ARGV, 6))
  return 1
end

function ops.fields() -- count field* hash* -> JSON list: of each hash these fields, false where none
  local last, out = 3 + tonumber(ARGV[3]), {}
  for i = last + 1, #ARGV do out[#out + 1] = call('HMGET', P .. ARGV[i], unpack(ARGV, 4, last)) end
  return cjson.encode(out)
end

function ops.stop() return stop_at(ARGV[3], ARGV[4]) end -- job limit

function ops.limit() return limit(unpack(ARGV, 3, 7)) end -- job images cut max_device_ms deadline_ms

function ops.forget() return forget(ARGV[3]) end -- job

function ops.reap() -- max -> leases ended
  -- Jobs that are gone, or closed, await no last word: a queue that went back in time may list them.
  for _, j in ipairs(call('ZRANGE', P .. 'finishing', 0, ARGV[3] - 1)) do
    local state = call('HGET', job_key(j), 'state')
    if not state or state == 'closed' then call('ZREM', P .. 'finishing', j) end
  end
  return reap(tonumber(ARGV[3]), true)
end

if not ops[op] then return redis.error_reply('ERR no such op: ' .. op) end
return ops[op]()
