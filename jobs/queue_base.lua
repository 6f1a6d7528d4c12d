-- What every part of the queue's script stands on. The parts, in this order, are one script:
-- queue_base, queue_order (who is next), queue_steps (what becomes of a unit); then the ops: queue_limits,
-- queue_jobs, queue_presence, shard_queue.
--
-- KEYS[1] key prefix with its hash tag; every key begins with it, so the queue lives in one slot
-- ARGV[1] op    ARGV[2] now in ms, '0' for the server's clock (tests override)    ARGV[3..] arguments
--
-- A unit is a shard ("17") or a part of one ("17:17000-17500": images 17000 up to 17500).

local call, P, op = redis.call, KEYS[1] .. ':', ARGV[1]
local now = tonumber(ARGV[2])
if now == 0 then
  local t = call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end

local LEASE_MAX = 600000   -- no lease may end later than this from now
local BACKOFF_MAX = 60000  -- longest wait after a crash
local RELEASES_MAX = 20    -- further releases of a unit count as crashes, so that nothing loops
local SKIP_MAX = 1024      -- finished shards that one claim steps over
local TENANTS_MAX = 64     -- tenants looked at in one go when the first ones are at their cap
local TENANTS_ALL = 4096   -- and how many in all
local AGE_MS = 300000      -- a lane with work counts one priority higher for each time so long without
local MEMO_MS = 600000     -- how long a claim's reply is kept for its resend
local PARKED_MS = 604800000 -- who was away for so long begins anew
local LEVEL = 1e-6         -- device-seconds that are none: sums of fractions differ by less
local EVENTS_MAX = 100000

local function int(x) return string.format('%.0f', x) end
local function num(x) return string.format('%.17g', x) end
local function job_key(j) return P .. 'job:' .. j end
local function get(j, ...) return call('HMGET', job_key(j), ...) end
local function of(name, j) return P .. name .. ':' .. j end
-- A job that may go on, and one whose running units are to end (by its user, or by its budget).
local function live(state) return state == 'run' or state == 'pause' end
local function ending(state) return state == 'cancel' or state == 'stop' end

-- First image, end, and shard of a unit of job j; nil if the job or the unit does not exist.
local function span(j, u)
  local f = get(j, 'shard_images', 'images', 'shards')
  if not f[1] then return nil end
  local size, images, shards = tonumber(f[1]), tonumber(f[2]), tonumber(f[3])
  local top, a, b = string.match(u, '^(%d+):(%d+)-(%d+)$')
  local k = tonumber(top or u)
  if not k or k >= shards then return nil end
  local first, stop = k * size, math.min((k + 1) * size, images)
  if not top then return first, stop, k end
  a, b = tonumber(a), tonumber(b)
  if a < first or b > stop or a >= b then return nil end
  return a, b, k
end

local function event(kind, j, u, ...)
  local f = get(j, 'images', 'done', 'failed', 'dead')
  call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_MAX, '*', 'type', kind, 'job', j, 'unit', u,
    'time', int(now), 'images', f[1] or '0', 'done', f[2] or '0', 'failed', f[3] or '0',
    'dead', f[4] or '0', ...)
end

local ops = {}
