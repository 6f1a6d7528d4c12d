-- The shard queue: every step that must be atomic, one op per call. docs/queue.md has the picture.
-- Here: the ops on shards, from claim to done; those on jobs are in queue_jobs.lua and queue_limits.lua.
--
-- Runs last of all its files, in one script with them. Rules of all: check before the first write
-- (a failing script keeps its earlier writes); every loop is bounded; every op may run twice (clients
-- resend when a reply is lost).

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
