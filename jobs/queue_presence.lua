-- Ops that tell who lives and what happened, and that read many records at once.

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
