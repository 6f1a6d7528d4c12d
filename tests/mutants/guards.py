"""Every guard of the queue's Lua, and how it is taken out: one textual change each."""

# ruff: noqa: E501 - lines of the script are quoted as they are

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """What a piece of the script is for, and the script without it."""

    name: str
    before: str
    after: str


def _gone(name: str, before: str) -> Guard:
    """The text is left out."""
    return Guard(name, before, "")


GUARDS = (
    # submit
    Guard(
        "a used key with another body",
        "known_sha == sha and 'duplicate' or 'conflict'",
        "'duplicate'",
    ),
    Guard(
        "a used id with another body",
        "existing == sha and 'duplicate' or 'conflict'",
        "'duplicate'",
    ),
    _gone(
        "a job that is there",
        "if existing then return { existing == sha and 'duplicate' or 'conflict', j } end",
    ),
    Guard("open jobs in all", "call('ZCARD', P .. 'open') < tonumber(open_max)", "true"),
    Guard("open jobs of a tenant", "mine < tonumber(tenant_max)", "true"),
    Guard("a restore is never full", "if restoring == '0' and not room", "if not room"),
    _gone(
        "a key is remembered",
        "if key ~= '' then call('SET', P .. 'once:' .. tenant .. '|' .. key, j .. '|' .. sha, 'PX', keep) end",
    ),
    # claim
    _gone(
        "a claim's resend",
        "if string.sub(memo, 1, #mine) == mine then return string.sub(memo, #mine + 1) end",
    ),
    _gone("a claim ends old leases", "reap(32)\n"),
    Guard("no more than wanted", "#out < want and room > 0", "room > 0"),
    Guard(
        "an empty job leaves its lane",
        "      deactivate(j)\n      local later",
        "      local later",
    ),
    _gone(
        "a job with retries is woken",
        "if later then call('ZADD', P .. 'delayed', 'LT', later, j) end",
    ),
    Guard(
        "a tenant's cap",
        "capped == 0 and look(",
        "look(",
    ),
    Guard(
        "tenants at their cap hide nobody",
        "while first < TENANTS_ALL do",
        "while first < TENANTS_MAX do",
    ),
    _gone("bits have room at once", "  if cursor == 0 then make_room(j) end\n"),
    _gone("bits of what is read back too", "  make_room(j)\n"),
    _gone("a retry is handed out once", "    call('ZREM', of('retry', j), due)\n"),
    Guard("a done shard is passed over", "call('GETBIT', bits, k) == 0 and ", ""),
    Guard("a split shard is passed over", " and call('HEXISTS', of('split', j), k) == 0", ""),
    Guard("the last shards are divided", "if parts == 1 and not cut then", "if true then"),
    Guard("a part is worth its costs", "math.floor(batches / 3)", "batches"),
    Guard(
        "what waits besides comes first",
        "renderers - math.max(0, waiting - left)",
        "tonumber(renderers)",
    ),
    Guard(
        "no part waits for its tenant's cap",
        "math.floor(batches / 3), room)",
        "math.floor(batches / 3))",
    ),
    Guard("a part for several is sound", " or call('SISMEMBER', of('tail', j), u) == 1", ""),
    Guard(
        "a part for several has every attempt",
        "(sound(j, u) or b - a == 1) and tonumber(f[1]) or 1",
        "(u == int(top) or b - a == 1) and tonumber(f[1]) or 1",
    ),
    Guard("only running jobs are served", "if f[1] ~= 'run' then return end", ""),
    Guard(
        "idle time earns no credit",
        "place = math.max(tonumber(place or clock), clock)",
        "place = tonumber(place or 0)",
    ),
    Guard(
        "a lane counts from where one joins",
        "offset or num(place - (call('HGET', of('tenant', tenant), 'time') or 0))",
        "offset or '0'",
    ),
    Guard(
        "what one has elsewhere counts", "if math.abs(whole - place) < LEVEL then", "if true then"
    ),
    Guard(
        "and not for ever",
        "math.min(whole, math.max(place, clock.at + most))",
        "whole",
    ),
    Guard(
        "no further than the lane has moved",
        "clock.before and math.max(clock.at - clock.before, 2 * clock.step) or math.huge",
        "math.huge",
    ),
    Guard(
        "by two units at least",
        "math.max(clock.at - clock.before, 2 * clock.step)",
        "clock.at - clock.before",
    ),
    Guard(
        "what is given back elsewhere is no credit",
        "math.max(math.min(whole, math.max(place, clock.at + most)), math.min(place, clock.at))",
        "math.min(whole, math.max(place, clock.at + most))",
    ),
    _gone(
        "what is forgiven stays so",
        "  if one.place ~= whole then call('HSET', of('tenant', tenant), lane.name, num(one.place - time)) end\n",
    ),
    Guard("who has less elsewhere is found", "(not best or before(one, best))", "not best"),
    _gone(
        "the lane remembers where one stands",
        "  for _, one in ipairs(moved) do call('ZADD', of('lane', lane.name), num(one.place), one.tenant) end\n",
    ),
    Guard("a lane's clock is read at marks", "now - clock.since >= AGE_MS", "true"),
    Guard("shares by weight", "device_seconds / one.weight", "device_seconds"),
    Guard(
        "what one had counts when one returns",
        "call('HSET', of('parked', lane), tenant, offset .. '|' .. place)",
        "local _ = offset",
    ),
    _gone("a cap that is lifted", "  call('SREM', P .. 'capped', tenant)\n"),
    Guard("who is below the cap again", "units >= cap and 'SADD' or 'SREM'", "'SADD'"),
    _gone(
        "a tenant without jobs is forgotten", "    call('PEXPIRE', of('tenant', f[3]), PARKED_MS)\n"
    ),
    _gone("but not who returns", "  call('PERSIST', of('tenant', tenant))\n"),
    Guard("what is passed over ages", " + math.floor((now - lane.since) / AGE_MS)", ""),
    Guard("of two the one that grew old", "rank > highest", "rank >= highest"),
    _gone(
        "what was served is young in the next claim",
        "  call('HSET', P .. 'passed', lane.name, int(now))\n",
    ),
    Guard("and in this one", "lane.since, lane.fresh = now, true", "lane.fresh = true"),
    _gone(
        "without work nothing ages",
        "  if call('EXISTS', of('lane', lane)) == 0 then call('HDEL', P .. 'passed', lane) end\n",
    ),
    _gone("it ages from when it has work", "  call('HSETNX', P .. 'passed', lane, int(now))\n"),
    _gone(
        "nobody is passed over in what is to come",
        "    if tonumber(since or 0) > now then call('HSET', P .. 'passed', names[i], int(now)) end\n",
    ),
    Guard("a lane without a unit is left", "else lane.spent = true end", "end"),
    Guard(
        "what was spent is charged",
        "if held == token then correct(j, b - a, device_ms / 1000) end",
        "",
    ),
    Guard(
        "a late finish is not charged twice",
        "if held == token then correct(j, b - a, device_ms / 1000) end",
        "correct(j, b - a, device_ms / 1000)",
    ),
    Guard("a unit given back costs nothing", "  correct(j, b - a, 0)\n", ""),
    Guard(
        "the clock goes with who is alone",
        "call('ZCARD', of('lane', lane)) == 1",
        "false",
    ),
    Guard(
        "who is away is charged",
        "if place then call('HSET', of('parked', lane), tenant, offset .. '|' .. num(place + more)) end",
        "",
    ),
    Guard("what was adopted is not timed", "if tonumber(device_ms) > 0 then", "if true then"),
    # leases
    Guard(
        "tokens rise when the clock goes back",
        "math.max(tonumber(call('GET', P .. 'fence') or 0) + 1, now * 1000)",
        "now * 1000",
    ),
    Guard(
        "tokens rise after Redis forgot",
        "math.max(tonumber(call('GET', P .. 'fence') or 0) + 1, now * 1000)",
        "tonumber(call('GET', P .. 'fence') or 0) + 1",
    ),
    Guard(
        "a unit that fell knows how often",
        "again and call('HGET', of('crashes', j), u) or 0",
        "0",
    ),
    _gone("a lease is ended once", "  if not token then return nil end\n"),
    _gone("a tenant's units are let go", "  hold(f[1], -1)\n"),
    Guard("a cancelled job waits for its leases", " == 0 and ending(f[2]) then", " == 0 then"),
    Guard(
        "the last lease closes a cancelled job",
        "    call('ZADD', P .. 'finishing', now, j)\n  end\n  return token, worker, progress",
        "  end\n  return token, worker, progress",
    ),
    # renew
    Guard(
        "renewing asks for the token",
        "if held == token and (live(state) or ending(state)) then",
        "if live(state) or ending(state) then",
    ),
    Guard(
        "a renewal tells of a cancel",
        "answer = ending(state) and 'cancel' or state",
        "answer = state",
    ),
    Guard("a renewal tells of a pause", "state == 'pause' and 'pause' or 'ok'", "'ok'"),
    Guard(
        "progress never goes back",
        "progress ~= '' and tonumber(progress) > (tonumber(before) or -1)",
        "progress ~= ''",
    ),
    Guard(
        "a lease of a closed job ends", "    elseif held == token then\n      unlease(j, u)\n", ""
    ),
    _gone("time without progress is told", " or tonumber(device_ms) > tonumber(told)"),
    Guard("which is none", "further and progress or before, images", "progress, images"),
    Guard("what was told is not taken back", "int(math.max(device_ms, told))", "device_ms"),
    # win
    _gone("the first winner stays", "  if winner then return winner end\n"),
    _gone("a stale token does not win", "  if owner(j, u) ~= token then return '' end\n"),
    # done
    _gone("a unit that is none", "  if not a then return 'unknown' end\n"),
    Guard(
        "a whole that was split is not counted",
        "(whole and call('HEXISTS', of('split', j), top) == 1)\n    or ",
        "",
    ),
    Guard(
        "a dead image is not counted",
        "\n    or call('HEXISTS', of('dead', j), int(a) .. '-' .. int(b)) == 1 then return 'superseded'",
        " then return 'superseded'",
    ),
    Guard(
        "a shard is booked once", "(whole and call('GETBIT', of('bits', j), top) == 1)\n    or ", ""
    ),
    Guard(
        "a part is booked once",
        "\n    or (not whole and call('SISMEMBER', of('parts', j), u) == 1) then",
        " then",
    ),
    _gone(
        "the fence where Redis decides",
        "  if held ~= token and arbiter ~= 's3' then return 'fenced' end\n",
    ),
    _gone(
        "nothing is booked to a job that ended",
        "  if not live(f[1]) then\n    if held == token then\n      unlease(j, u)\n      correct(j, b - a, device_ms / 1000)\n      call('HINCRBY', job_key(j), 'device_ms', device_ms)\n    end\n    return 'cancelled'\n  end\n",
    ),
    Guard(
        "what was cancelled is charged what it spent",
        "      unlease(j, u)\n      correct(j, b - a, device_ms / 1000)\n",
        "      unlease(j, u)\n",
    ),
    _gone(
        "and has spent it",
        "      call('HINCRBY', job_key(j), 'device_ms', device_ms)\n",
    ),
    Guard(
        "a unit of before a split is not counted",
        "if not held and not call('ZSCORE', of('retry', j), u) and not (whole and top >= tonumber(f[2])) then\n    return 'superseded'\n  end",
        "",
    ),
    Guard(
        "what is done is not retried",
        "  call('ZREM', of('retry', j), u)\n  call('HDEL', of('crashes', j), u)\n",
        "  call('HDEL', of('crashes', j), u)\n",
    ),
    _gone(
        "a part that is done is noted", "  if not whole then call('SADD', of('parts', j), u) end\n"
    ),
    Guard("no more fail than there are", "math.min(tonumber(failed), b - a)", "tonumber(failed)"),
    # fail
    _gone("failing asks for the token", "  if held ~= token then return 'lost' end\n"),
    _gone("what is given back was spent", "  waste(j, math.max(device_ms, told))\n"),
    Guard("as much as was told", "waste(j, math.max(device_ms, told))", "waste(j, device_ms)"),
    _gone("and so what died", "      waste(j, told)\n"),
    Guard(
        "what ended is not retried",
        "    return 'cancelled'\n  end\n  -- Who says",
        "  end\n  -- Who says",
    ),
    Guard(
        "what is cancelled and given back costs nothing",
        "    if a and kind == 'release' then correct(j, b - a, 0) end\n",
        "",
    ),
    Guard("what is cancelled and died is charged", "if a and kind == 'release' then", "if a then"),
    Guard(
        "releases have an end",
        "call('HINCRBY', of('releases', j), u, 1) > RELEASES_MAX then\n    return crash",
        "false then\n    return crash",
    ),
    Guard(
        "a death elsewhere is no crash",
        "local elsewhere = progress == '-' or (tonumber(progress) or -1) >= b",
        "local elsewhere = false",
    ),
    Guard(
        "deaths elsewhere have an end",
        "elsewhere and call('HINCRBY', of('releases', j), u, 1) <= RELEASES_MAX",
        "elsewhere",
    ),
    Guard(
        "a single image has every attempt",
        "(sound(j, u) or b - a == 1) and tonumber(f[1]) or 1",
        "sound(j, u) and tonumber(f[1]) or 1",
    ),
    Guard(
        "parts split at their first crash",
        "(sound(j, u) or b - a == 1) and tonumber(f[1]) or 1",
        "tonumber(f[1])",
    ),
    Guard("a crash waits", "now + math.min(BACKOFF_MAX, 1000 * 2 ^ crashes)", "now"),
    Guard("the wait has an end", "math.min(BACKOFF_MAX, 1000 * 2 ^ crashes)", "1000 * 2 ^ crashes"),
    Guard(
        "a split is counted once",
        "call('HSETNX', of('split', j), top, int(b - a))\n  call('HDEL'",
        "call('HSET', of('split', j), top, int(b - a))\n  call('HDEL'",
    ),
    Guard(
        "a split forgets its winner",
        "  call('HDEL', of('winners', j), u)\n  for _, part",
        "  for _, part",
    ),
    Guard(
        "news that help nothing are not used", "if q - p < b - a then return", "if true then return"
    ),
    Guard("empty parts are none", "if part[1] < part[2] then requeue", "if true then requeue"),
    # the end of a job
    Guard(
        "the error budget", "local spent = f[7] and lost > tonumber(f[7])", "local spent = false"
    ),
    Guard(
        "all are accounted for",
        "if not spent and f[1] + lost < tonumber(f[4]) then return end",
        "if not spent then return end",
    ),
    Guard(
        "no end while it is read back",
        "if not live(f[5]) or f[6] == '1' then return end",
        "if not live(f[5]) then return end",
    ),
    Guard(
        "a stop waits for its leases",
        "if tonumber(f[8]) == 0 then call('ZADD', P .. 'finishing', now, j) end\n  event",
        "call('ZADD', P .. 'finishing', now, j)\n  event",
    ),
    Guard(
        "a shard is whole with its last part",
        "if not left or left <= 0 then call('SETBIT'",
        "if true then call('SETBIT'",
    ),
    Guard(
        "a cancel waits for its leases",
        "wanted == 'cancel' and tonumber(f[3]) == 0 then",
        "wanted == 'cancel' then",
    ),
    Guard(
        "a job that ended stays so",
        "if f[1] == wanted or not live(f[1]) then return f[1] end",
        "if f[1] == wanted then return f[1] end",
    ),
    _gone(
        "a job is not resumed while it is read back",
        "  if f[2] == '1' and wanted ~= 'cancel' then return f[1] end\n",
    ),
    _gone("closing asks for the state", "  if not ready[outcome] then return 'not_ready' end\n"),
    _gone(
        "a job is closed once",
        "  if f[1] == 'closed' then return f[4] == outcome and 'duplicate' or 'conflict' end\n",
    ),
    Guard("a closed job expires", "call('PEXPIRE', of(name, j), keep)", ""),
    _gone(
        "a tenant's jobs are let go",
        "    call('HDEL', P .. 'tenant_jobs', f[3])\n",
    ),
    Guard(
        "amending asks for a closed job",
        "if call('HGET', job_key(j), 'state') ~= 'closed' then return 'unknown' end",
        "",
    ),
    # restore
    _gone(
        "a restore is run once",
        "  if call('HGET', job_key(j), 'restoring') ~= '1' then return 'ignored' end\n",
    ),
    Guard(
        "what is whole is not booked again",
        "if a and call('GETBIT', of('bits', j), top) == 0 then",
        "if a then",
    ),
    Guard(
        "a dead image is booked once",
        "call('HSETNX', of('dead', j), range, news) == 1 then",
        "call('HSETNX', of('dead', j), range, news) ~= 9 then",
    ),
    Guard(
        "a restored part is booked once",
        "(u == int(top) or call('SADD', of('parts', j), u) == 1)",
        "(u == int(top) or call('SADD', of('parts', j), u) ~= 9)",
    ),
    # limits
    Guard(
        "a job that ends is stopped at no limit",
        "if not live(f[1]) or f[3] == '1' then return f[1] end\n  drop_work(j)",
        "if f[3] == '1' then return f[1] end\n  drop_work(j)",
    ),
    Guard(
        "nor is one that is read back",
        "if not live(f[1]) or f[3] == '1' then return f[1] end\n  drop_work(j)",
        "if not live(f[1]) then return f[1] end\n  drop_work(j)",
    ),
    Guard(
        "a limit waits for its leases",
        "if tonumber(f[2]) == 0 then call('ZADD', P .. 'finishing', now, j) end\n  event('state', j, '', 'state', 'stop')",
        "call('ZADD', P .. 'finishing', now, j)\n  event('state', j, '', 'state', 'stop')",
    ),
    _gone("images that were let through stay so", "  if new <= old then return end\n"),
    Guard(
        "what a limit cut off is handed out",
        "if old % size > 0 and call('HEXISTS', of('split', j), int(k)) == 1 then",
        "if false then",
    ),
    _gone("once, where its shard was", " and call('HEXISTS', of('split', j), int(k)) == 1"),
    _gone("its shard is not settled any more", "    call('SETBIT', of('bits', j), int(k), 0)\n"),
    Guard(
        "a shard that a limit cuts is a part",
        "local cut = f[3] == '1' and left == 1",
        "local cut = false",
    ),
    Guard(
        "a closed job alone is forgotten",
        "if f[1] ~= 'closed' then return f[1] or 'unknown' end",
        "if not f[1] then return 'unknown' end",
    ),
    Guard("a limit ends a job as stopped", "(f[1] == 'stop' and f[6] and idle)", "false"),
    Guard(
        "and nothing else does", "(f[1] == 'stop' and f[6] and idle)", "(f[1] == 'stop' and idle)"
    ),
    # time
    _gone(
        "who is gone awaits no last word",
        "    if not state or state == 'closed' then call('ZREM', P .. 'finishing', j) end\n",
    ),
    Guard("a lease too long is cut short", "call('ZADD', P .. 'leases', now + BACKOFF_MAX, k)", ""),
    Guard(
        "a job delayed too long is woken",
        "now + BACKOFF_MAX + 1, '+inf', 'LIMIT', 0, max)) do\n    wake(j)",
        "now + BACKOFF_MAX + 1, '+inf', 'LIMIT', 0, max)) do\n    local _ = j",
    ),
    Guard(
        "a retry too far is brought near",
        "    call('ZADD', of('retry', j), now, u)\n  end\n  if call('ZCOUNT'",
        "  end\n  if call('ZCOUNT'",
    ),
    _gone(
        "a job with later retries is woken again",
        "  if later[2] then call('ZADD', P .. 'delayed', later[2], j) end\n",
    ),
    Guard(
        "closed jobs leave the lists",
        "    call('ZREM', P .. 'jobs', j)\n    call('ZREM', of('jobs', tenant), j)\n",
        "",
    ),
    Guard(
        "renderers that are gone leave the list",
        "call('ZREMRANGEBYSCORE', P .. 'renderers', '-inf', now)",
        "",
    ),
    _gone(
        "an event's resend",
        "  if not call('SET', P .. 'emitted:' .. ARGV[3], 1, 'PX', MEMO_MS, 'NX') then return 0 end\n",
    ),
)
