"""The two commands of the paced limiter, each one Lua script on the keys of one limit.

KEYS of both: the state, a hash; the log, a sorted set of requests by the time (microseconds) at
which they were given tokens; what each was given, a hash, `given` or `given:back`. A request that was
answered is kept ten seconds, so that it can be sent again: redis-py may.

The log decides: no window of a second has more tokens than the limit. The state's `tokens` only
spread them. A limit that Redis does not know begins with none."""

from __future__ import annotations

__all__ = ["DRAW", "GIVE_BACK"]

_SHARED = """
local state, log, given = KEYS[1], KEYS[2], KEYS[3]
local SECOND, KEPT, EXPIRES = 1000000, 10000000, 3600000

local function slice_of(limit) return math.max(1, limit / 10) end
local function most_of(limit) return math.max(1, limit * 0.3) end

local function read_clock(text)
    local now = tonumber(text)
    if now then return now end
    local time = redis.call('TIME')
    return time[1] * SECOND + time[2]
end

local function counts_of(text)
    local all, back = string.match(text, '^(%d+):?(%d*)$')
    return tonumber(all), tonumber(back) or 0
end

-- Numbers as text: Redis would cut those of a script to 14 digits.
local function exact(number) return string.format('%.6f', number) end

local function expire_all()
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, EXPIRES) end
end
"""

# ARGV: the request's id, who asks, tokens wanted, limit a second, the time in microseconds ("" is
# Redis's own clock), and then, for each share, its name and weight, the first the most important.
# Gives the tokens given, and the milliseconds after which it is worth asking for what is missing.
#
# A caller that has to wait is remembered as waiting, for as long as that and a moment. Tokens go to those
# who wait in proportion to their weights (each has a `pass`, which rises by 1/weight a token, and the
# lowest is next), so what is due to another stays for him. The weight of one that does not wait goes
# to the next below that does; from the lowest to the next above.
DRAW = (
    _SHARED
    + """
local request, asker = ARGV[1], ARGV[2]
local wanted, limit, now = tonumber(ARGV[3]), tonumber(ARGV[4]), read_clock(ARGV[5])
local GRACE, MOST = 200000, 1000

local before = redis.call('HGET', given, request)
if before then return {(counts_of(before)), 0} end

for _, old in ipairs(redis.call('ZRANGEBYSCORE', log, '-inf', now - KEPT)) do
    redis.call('HDEL', given, old)
    redis.call('ZREM', log, old)
end

local known = redis.call('HMGET', state, 'at', 'tokens')
local at, tokens = tonumber(known[1]) or now, tonumber(known[2]) or 0
if at > now then
    -- The clock was set back: what was given since then counts as given now.
    for _, ahead in ipairs(redis.call('ZRANGEBYSCORE', log, '(' .. now, '+inf')) do
        redis.call('ZADD', log, now, ahead)
    end
    at = now
end
tokens = math.min(most_of(limit), tokens + (now - at) * limit / SECOND)

local used, times = 0, {}
local recent = redis.call('ZRANGEBYSCORE', log, now - SECOND, '+inf', 'WITHSCORES')
for i = 1, #recent, 2 do
    local all, back = counts_of(redis.call('HGET', given, recent[i]) or '0')
    used = used + all - back
    times[#times + 1] = {tonumber(recent[i + 1]), all - back}
end
local room = limit - used
local free = math.max(0, math.min(MOST, math.floor(math.min(tokens, room, slice_of(limit)) + 0.000001)))

-- Who waits, and with which weight.
local names, share = {}, {}
for i = 6, #ARGV, 2 do
    local name = ARGV[i]
    local kept = redis.call('HMGET', state, name .. '.pass', name .. '.want', name .. '.until')
    local ends = math.min(tonumber(kept[3]) or 0, now + SECOND)
    names[#names + 1] = name
    share[name] = {
        own = tonumber(ARGV[i + 1]), pass = tonumber(kept[1]) or 0,
        want = ends > now and tonumber(kept[2]) or 0, waited = ends > now,
    }
end
local mine = share[asker]
if not mine.waited then
    local lowest
    for _, name in ipairs(names) do
        local other = share[name]
        if other.want > 0 and (not lowest or other.pass < lowest) then lowest = other.pass end
    end
    mine.pass = math.max(mine.pass, lowest or mine.pass)
end
mine.want = wanted
local carried, last = 0, nil
for _, name in ipairs(names) do
    local each = share[name]
    if each.want > 0 then
        each.weight, carried, last = each.own + carried, 0, each
    else
        carried = carried + each.own
    end
end
if last then last.weight = last.weight + carried end

local got, passed_by = 0, {}
for _ = 1, free do
    local best, lowest
    for _, name in ipairs(names) do
        local each = share[name]
        local taken = passed_by[name] or 0
        if each.want > taken then
            local next_pass = each.pass + (taken + 1) / each.weight
            if not lowest or next_pass < lowest then best, lowest = name, next_pass end
        end
    end
    if not best then break end
    passed_by[best] = (passed_by[best] or 0) + 1
end
got = passed_by[asker] or 0

local wait = 0
if got > 0 then
    mine.pass = mine.pass + got / mine.weight
    tokens = tokens - got
    redis.call('HSET', given, request, got)
    redis.call('ZADD', log, now, request)
    times[#times + 1] = {now, got}
    room = room - got
end
if got < wanted then
    -- Worth asking again for those of a twentieth of a second.
    local target = math.min(wanted - got, math.max(1, math.floor(limit / 20)))
    wait = math.max(1, math.ceil((target - tokens) / limit * 1000))
    if free > got then wait = math.max(wait, 5) end
    local freed = room
    for _, entry in ipairs(times) do
        if freed >= target then break end
        freed = freed + entry[2]
        wait = math.max(wait, math.floor((entry[1] + SECOND - now) / 1000) + 1)
    end
end
local ends = got < wanted and now + wait * 1000 + GRACE or 0
redis.call('HSET', state, 'at', exact(now), 'tokens', exact(tokens),
    asker .. '.pass', exact(mine.pass), asker .. '.want', wanted - got, asker .. '.until', exact(ends))
expire_all()
return {got, wait}
"""
)

# ARGV: the request's id, who asked, his weight, tokens given back, limit a second. Gives the tokens
# taken back: none for a request that is not known or has given back before.
GIVE_BACK = (
    _SHARED
    + """
local request, asker = ARGV[1], ARGV[2]
local weight, count, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local before = redis.call('HGET', given, request)
if not before then return 0 end
local all, back = counts_of(before)
if back > 0 then return 0 end
count = math.min(count, all)
redis.call('HSET', given, request, all .. ':' .. count)
local kept = redis.call('HMGET', state, 'tokens', asker .. '.pass')
local tokens = math.min(most_of(limit), (tonumber(kept[1]) or 0) + count)
redis.call('HSET', state, 'tokens', exact(tokens),
    asker .. '.pass', exact((tonumber(kept[2]) or 0) - count / weight))
expire_all()
return count
"""
)
