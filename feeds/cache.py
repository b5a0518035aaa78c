"""Cached feeds in Redis: the newest posts of feeds that are read. Copies, never the truth;
docs/feeds.md#reading says why they are right.

A key holds the feed that was read for one user, or the mark of a fill, which is about to read it.
Three rules keep it correct:

- A fill sets its mark before it reads PostgreSQL, and its result is stored only if the mark is still
  there. A change of a feed deletes the mark, so a result from before the change is not stored after it.
- A cached feed names the snapshots that it comes from. A reader asks PostgreSQL for the changes since
  then (feeds/reading/changes.py), and ignores a feed that is older than a change it knows.
- Keys contain Redis's run id. Feeds that a restart brings back from a file, or a failover from a
  replica, have missed changes; under the new run id they are not found.

Ids are eight bytes each, newest first, and compared byte by byte: numbers of Redis and its Lua are exact
up to 2^53 only. Redis 6 or later.
"""

from __future__ import annotations

import struct
import sys
import time
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import redis
import structlog
from django.conf import settings

from outbox import redis_client

__all__ = [
    "CacheUnavailable",
    "Command",
    "Entry",
    "Kept",
    "add_entries",
    "ask",
    "cached_users",
    "is_on",
    "kept_feeds",
    "look",
    "mark",
    "new_feed",
    "replies",
    "store",
    "touch_users",
]

Command = tuple[str | int | bytes, ...]
Entry = tuple[str, int]  # user, post

IDS_AT_MOST = 120  # of one feed
MARK_SECONDS = 10  # a fill that takes longer is not stored
USERS_AT_ONCE = 500  # in a script: nobody else is served meanwhile
ANSWERS_WITHIN = 0.5  # seconds
AWAY_SECONDS = 1.0
NEVER = (1 << 64) - 1

_FULL, _MARK = b"V", b"F"
# xmin of the fill's snapshot, lowest xmin of what was added, floor, and how long the two texts are
# that follow: the fill's snapshot and the authors that are merged at read, as JSON.
_HEAD = struct.Struct(">cQQQHI")

log = structlog.get_logger("feeds.cache")


class CacheUnavailable(Exception):
    """Redis has not confirmed, so the change may not have been made."""


class Kept(msgspec.Struct, frozen=True):
    """A cached feed as it is in Redis.

    xmin   lowest transaction that the fill may not have seen
    added  the same of whatever was added since; NEVER: nothing was
    floor  down to which post it is complete; 0: to the very first
    """

    value: bytes
    xmin: int
    added: int
    floor: int
    texts: tuple[int, int, int]

    @classmethod
    def of(cls, value: bytes) -> Kept:
        """What a key holds."""
        _, xmin, added, floor, snapshot, merged = _HEAD.unpack_from(value)
        end = _HEAD.size + snapshot
        return cls(value, xmin, added, floor, (_HEAD.size, end, end + merged))

    @property
    def snapshot(self) -> str:
        """Of the fill, as PostgreSQL writes it."""
        begin, end, _ = self.texts
        return self.value[begin:end].decode()

    @property
    def merged(self) -> tuple[str, ...]:
        """Authors whose posts are not among `ids`."""
        _, begin, end = self.texts
        return _authors(self.value[begin:end])

    @property
    def ids(self) -> list[int]:
        """Newest first: entries, own posts, and posts of who was followed a moment ago."""
        ids = array("Q", self.value[self.texts[2] :])
        if sys.byteorder == "little":
            ids.byteswap()
        return ids.tolist()


@lru_cache(maxsize=4096)
def _authors(words: bytes) -> tuple[str, ...]:
    return _AUTHORS.decode(words)


_AUTHORS = msgspec.json.Decoder(tuple[str, ...])


def new_feed(*, ids: Sequence[int], floor: int, snapshot: str, merged: Sequence[str]) -> bytes:
    """The value of a feed that was just read."""
    if len(ids) > IDS_AT_MOST:
        ids = ids[:IDS_AT_MOST]
        floor = ids[-1]
    of, authors = snapshot.encode(), msgspec.json.encode(merged)
    xmin = int(snapshot.partition(":")[0])
    head = _HEAD.pack(_FULL, xmin, NEVER, floor, len(of), len(authors))
    return head + of + authors + struct.pack(f">{len(ids)}Q", *ids)


# In front of each script, whose last arguments are users, with what belongs to each. A master that
# another has replaced keeps its run id and hears of no change any more.
_RUN = """
if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
    return redis.error_reply('READONLY This is a replica.')
end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local function key_of(user) return 'feed:' .. run .. ':' .. user end
"""
# ARGV: "" or a mark; users. Gives what is kept of each. Where nothing is, the mark is set; Redis may be
# too full for it, then the fill is not stored.
_LOOK = f"""{_RUN}
local found = {{}}
for i = 2, #ARGV do
    local key = key_of(ARGV[i])
    local kept = redis.call('GET', key)
    found[i - 1] = kept and string.byte(kept) == 86 and kept
    if not found[i - 1] and ARGV[1] ~= '' then
        redis.pcall('SET', key, ARGV[1], 'EX', {MARK_SECONDS})
    end
end
return found
"""
# ARGV: a mark; users. In place of what is kept, which is not to be believed.
_SET_MARK = f"""{_RUN}
for i = 2, #ARGV do
    local key = key_of(ARGV[i])
    redis.call('UNLINK', key)
    redis.pcall('SET', key, ARGV[1], 'EX', {MARK_SECONDS})
end
"""
# ARGV: the mark; seconds to keep; feeds at most; users, each with its value. The list of what is kept
# bounds the number: the feeds that were filled first go first.
_STORE = f"""{_RUN}
local list, now = 'feeds:' .. run, redis.call('TIME')[1]
for i = 4, #ARGV, 2 do
    local key = key_of(ARGV[i])
    if redis.call('GET', key) == ARGV[1] then
        local stored = redis.pcall('SET', key, ARGV[i + 1], 'EX', ARGV[2])
        local listed = redis.pcall('ZADD', list, now, ARGV[i])
        if stored.err or (type(listed) == 'table' and listed.err) then redis.call('UNLINK', key) end
    end
end
redis.call('EXPIRE', list, ARGV[2])
redis.call('ZREMRANGEBYSCORE', list, '-inf', now - ARGV[2] - 1)
local over = redis.call('ZCARD', list) - ARGV[3]
if over > 0 then
    local gone = redis.call('ZPOPMIN', list, over)
    for i = 1, #gone, 2 do redis.call('UNLINK', key_of(gone[i])) end
end
"""
# ARGV: where to go on. Gives where to go on next, and keys of feeds and marks.
_SCAN = f"""{_RUN} return redis.call('SCAN', ARGV[1], 'MATCH', key_of('*'), 'COUNT', 1000)"""
# ARGV: users.
_TOUCH = f"""{_RUN}
for i = 1, #ARGV do redis.call('UNLINK', key_of(ARGV[i])) end
"""
# ARGV: xmin of the snapshot that the posts were seen in; posts of a feed at most; users, each with
# posts. A feed that Redis has no room to write again is dropped.
_ADD = f"""{_RUN}
local function less(a, b)
    for i = 1, 8 do
        local x, y = string.byte(a, i), string.byte(b, i)
        if x ~= y then return x < y end
    end
    return false
end
local function with(ids, id)
    local at = 1
    while at < #ids and less(id, string.sub(ids, at, at + 7)) do at = at + 8 end
    if string.sub(ids, at, at + 7) == id then return ids end
    return string.sub(ids, 1, at - 1) .. id .. string.sub(ids, at)
end
for i = 3, #ARGV, 2 do
    local key, fresh = key_of(ARGV[i]), ARGV[i + 1]
    local kept = redis.call('GET', key)
    if kept and string.byte(kept) ~= 86 then
        redis.call('UNLINK', key)
    elseif kept then
        local added, floor = string.sub(kept, 10, 17), string.sub(kept, 18, 25)
        local snapshot, merged = struct.unpack('>I2I4', kept, 26)
        local texts_end = {_HEAD.size} + snapshot + merged
        local before = string.sub(kept, texts_end + 1)
        local ids = before
        for at = 1, #fresh, 8 do
            local id = string.sub(fresh, at, at + 7)
            if not less(id, floor) then ids = with(ids, id) end
        end
        if #ids > #before then
            if #ids > ARGV[2] * 8 then
                ids = string.sub(ids, 1, ARGV[2] * 8)
                floor = string.sub(ids, -8)
            end
            if less(ARGV[1], added) then added = ARGV[1] end
            local whole = string.sub(kept, 1, 9) .. added .. floor
                .. string.sub(kept, 26, texts_end) .. ids
            if redis.pcall('SET', key, whole, 'KEEPTTL').err then redis.call('UNLINK', key) end
        end
    end
end
"""


def is_on() -> bool:
    """Whether feeds are cached at all."""
    return bool(settings.FEED_CACHE_FEEDS > 0)


def look(users: Sequence[str], *, token: bytes = b"") -> Command:
    """Replies, for each user, with the value of a cached feed or None. With a token, the mark of a fill
    is left where there is none."""
    return "EVAL", _LOOK, 0, token and _MARK + token, *users


def mark(users: Sequence[str], *, token: bytes) -> Command:
    """The mark of a fill in place of feeds that are not believed."""
    return "EVAL", _SET_MARK, 0, _MARK + token, *users


def store(feeds: Iterable[tuple[str, bytes]], *, token: bytes) -> Command:
    """Keeps what was read for these users, where the mark is still there."""
    parts = [part for feed in feeds for part in feed]
    seconds, most = settings.FEED_CACHE_SECONDS, settings.FEED_CACHE_FEEDS
    return "EVAL", _STORE, 0, _MARK + token, seconds, most, *parts


def ask(command: Command) -> Any:
    """Send one on this process's connection. Raises CacheUnavailable."""
    try:
        server = redis_client.shared(
            url=settings.FEED_CACHE_URL,
            answers_within=ANSWERS_WITHIN,
            connects_within=ANSWERS_WITHIN,
        )
        return server.execute_command(*command)  # type: ignore[no-untyped-call]
    except (redis.RedisError, OSError) as error:
        raise CacheUnavailable(f"The cache of feeds did not answer: {error}") from error


def replies(commands: Sequence[Command]) -> Sequence[Any] | None:
    """The reply to each command, for reads; None where Redis is unavailable. The process then
    does not ask it for a moment, so that requests do not wait for a hanging Redis again and
    again."""
    global _away_until
    if time.monotonic() < _away_until:
        return None
    try:
        return [ask(command) for command in commands]
    except CacheUnavailable as error:
        log.warning("feed_cache_lost", error=str(error))
        _away_until = time.monotonic() + AWAY_SECONDS
        return None


_away_until = 0.0


def add_entries(rows: Sequence[Entry], *, as_of: int) -> None:
    """Show committed entries in the cached feeds that there are, and drop what is being filled.

    `as_of` is the xmin of the snapshot of the statement that found the posts not deleted and the follows
    active: without it a process that was stopped between its COMMIT and this would bring back a post that
    was deleted meanwhile. Raises CacheUnavailable.
    """
    if not is_on():
        return
    posts: dict[str, list[int]] = {}
    for user, post in rows:
        posts.setdefault(user, []).append(post)
    xmin = as_of.to_bytes(8, "big")
    for users in _at_once(list(posts)):
        parts: list[str | bytes] = []
        for user in users:
            parts += [user, struct.pack(f">{len(posts[user])}Q", *posts[user])]
        ask(("EVAL", _ADD, 0, xmin, IDS_AT_MOST, *parts))


def touch_users(user_ids: Iterable[str]) -> None:
    """Forget the feeds of these users, and whatever is being filled. After the COMMIT of what makes
    them wrong. Authors who have posted are among them: their posts are in their own feeds. What
    their followers see is added by `add_entries`, or merged at read. Raises CacheUnavailable."""
    if is_on():
        for users in _at_once(sorted(set(user_ids))):
            ask(("EVAL", _TOUCH, 0, *users))


def kept_feeds(user_ids: Sequence[str]) -> dict[str, Kept]:
    """The users whose feeds are cached now. Raises CacheUnavailable."""
    found: dict[str, Kept] = {}
    for users in _at_once(user_ids) if is_on() else ():
        values = ask(look(users))
        found |= {user: Kept.of(value) for user, value in zip(users, values, strict=True) if value}
    return found


def cached_users() -> set[str]:
    """All whose feeds are cached, or being filled. Goes through all keys. Raises CacheUnavailable."""
    users: set[str] = set()
    at = b"" if is_on() else b"0"
    while at != b"0":
        at, keys = ask(("EVAL", _SCAN, 0, at or b"0"))
        users.update(key.split(b":", 2)[2].decode() for key in keys)
    return users


def _at_once(users: Sequence[str]) -> Iterable[Sequence[str]]:
    return (users[at : at + USERS_AT_ONCE] for at in range(0, len(users), USERS_AT_ONCE))
