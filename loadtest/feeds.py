"""Posts, reads and follows against a running system, and whether every post has come to the feeds
(docs/feeds.md#for-operators).

Users are of this run alone. Every follow that a post is looked for through stands from the beginning to
the end; follows that come and go are those of other users."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from loadtest.client import Client, Failed, run_with
from loadtest.feeds_report import LOST_SHOWN, AcceptedPost, FeedsPlan, FeedsTally
from loadtest.sending import for_each, send_all

__all__ = ["Population", "generate_feeds"]

# A follow is ended by the next one of its pair.
SHARES = {"post": 0.10, "read": 0.85, "follow": 0.05}
SKEW = 1.1  # Zipf's exponent
MICRO = 1_000_000
POLL = 0.02  # seconds between two looks for a post


class Population:
    """Who writes, who reads, and who follows whom for the whole run: the same for the same seed."""

    def __init__(self, plan: FeedsPlan) -> None:
        self.users = [f"{plan.run}-{number}" for number in range(plan.users)]
        self._chooser = random.Random(f"users {plan.seed}")  # noqa: S311  (a repeatable choice)
        weights = (1 / rank**SKEW for rank in range(1, plan.users + 1))
        self._cumulated = list(itertools.accumulate(weights))
        # The users who read most are not those who write most.
        self._readers = self.users[:]
        self._chooser.shuffle(self._readers)
        self.followers: dict[str, list[str]] = {}
        for follower in self.users:
            chosen = {self.author() for _ in range(plan.follows)} - {follower}
            for followee in sorted(chosen):
                self.followers.setdefault(followee, []).append(follower)

    def author(self) -> str:
        """One of those who write, the popular ones more often."""
        return self._chooser.choices(self.users, cum_weights=self._cumulated)[0]

    def reader(self) -> str:
        return self._chooser.choices(self._readers, cum_weights=self._cumulated)[0]

    def some_followers(self, author: str, number: int) -> tuple[str, ...]:
        """Some who follow him to the end of the run."""
        followers = self.followers.get(author, [])
        return tuple(self._chooser.sample(followers, min(number, len(followers))))


def generate_feeds(
    plan: FeedsPlan, *, on_second: Callable[[FeedsTally], None] = lambda _: None
) -> FeedsTally:
    """Follow, send, look for every post; returns when that is done. Raises Failed when the follows
    cannot be made."""
    client = plan.client()
    return run_with(client, _generate(plan, client, on_second))


async def _generate(
    plan: FeedsPlan, client: Client, on_second: Callable[[FeedsTally], None]
) -> FeedsTally:
    tally = FeedsTally()
    run = _Run(plan, client, tally)
    await run.set_up()
    tally.begin = time.perf_counter()
    await send_all(plan, run.send, tally, on_second)
    tally.seconds = max(plan.seconds, time.perf_counter() - tally.begin)
    await run.check()
    return tally


class _Page(msgspec.Struct):
    post_ids: list[int]


_decode = msgspec.json.Decoder(_Page).decode


class _Created(msgspec.Struct):
    post_id: int


_decode_created = msgspec.json.Decoder(_Created).decode
_encode = msgspec.json.Encoder().encode


class _Run:
    def __init__(self, plan: FeedsPlan, client: Client, tally: FeedsTally) -> None:
        self._plan = plan
        self._client = client
        self._tally = tally
        self._people = Population(plan)
        self._chooser = random.Random(f"mix {plan.seed}")  # noqa: S311
        self._churn: dict[tuple[str, str], bool] = {}
        self._numbers = itertools.count(1)
        self._watching: set[asyncio.Task[None]] = set()

    async def set_up(self) -> None:
        """The follows that stand to the end."""
        pairs = (
            (follower, followee)
            for followee, followers in self._people.followers.items()
            for follower in followers
        )
        await for_each(pairs, self._begin_follow)

    async def _begin_follow(self, pair: Sequence[str]) -> None:
        reply = await self._client.request(b"POST", b"/follow", _pair(pair))
        if reply.status != 200:
            raise Failed(f"status {reply.status} of POST /follow")

    async def send(self, intended: float) -> bool:
        """One request of the mix; whether it was well answered."""
        self._tally.due += 1
        self._tally.under_way += 1
        [operation] = self._chooser.choices([*SHARES], [*SHARES.values()])
        try:
            match operation:
                case "post":
                    return await self._post(intended)
                case "read":
                    return await self._read(intended)
                case _:
                    return await self._follow(intended)
        except (Failed, msgspec.DecodeError) as failure:
            kind = failure.kind if isinstance(failure, Failed) else "malformed"
            self._tally.errors[f"{operation}: {kind}"] += 1
            return False
        finally:
            self._tally.under_way -= 1

    def _good(self, operation: str, intended: float, status: int, wanted: int) -> bool:
        if status != wanted:
            self._tally.errors[f"{operation}: status {status}"] += 1
            return False
        took = time.perf_counter() - intended
        self._tally.latency[operation].record(int(took * MICRO))
        return True

    async def _post(self, intended: float) -> bool:
        author = self._people.author()
        body = _encode({"author_id": author, "content": f"post {next(self._numbers)} of {author}"})
        reply = await self._client.request(b"POST", b"/posts", body)
        if not self._good("post", intended, reply.status, 202):
            return False
        post = AcceptedPost(
            _decode_created(reply.body).post_id,
            time.perf_counter(),
            self._people.some_followers(author, self._plan.sample),
        )
        self._tally.posts.append(post)
        if post.followers and len(self._watching) < self._plan.watched:
            watcher = asyncio.create_task(self._watch(post))
            self._watching.add(watcher)
            watcher.add_done_callback(self._watching.discard)
        else:
            self._tally.unwatched += 1
        return True

    async def _read(self, intended: float) -> bool:
        reader = self._people.reader()
        reply = await self._client.request(b"GET", b"/feeds/" + reader.encode())
        if reply.status == 200:
            _decode(reply.body)
        return self._good("read", intended, reply.status, 200)

    async def _follow(self, intended: float) -> bool:
        """A follow of a user that nobody looks for posts with; the next one of the pair ends it."""
        pair = f"{self._people.reader()}-churn", self._people.author()
        ends = self._churn.get(pair, False)
        operation, method = ("unfollow", b"DELETE") if ends else ("follow", b"POST")
        self._churn[pair] = not ends
        reply = await self._client.request(method, b"/follow", _pair(pair))
        return self._good(operation, intended, reply.status, 200)

    async def _watch(self, post: AcceptedPost) -> None:
        """Until one of the followers sees it; what never comes is found in the end."""
        follower = post.followers[0]
        give_up = post.accepted_at + self._plan.settle
        while time.perf_counter() < give_up:
            try:
                if await self._shows(post.post_id, follower, newest=True):
                    lag = time.perf_counter() - post.accepted_at
                    self._tally.lag.record(int(lag * MICRO))
                    return
            except Failed:
                pass
            await asyncio.sleep(POLL)

    async def _shows(self, post_id: int, follower: str, *, newest: bool = False) -> bool:
        """Whether the feed has it: on its first page, as readers see it, or wherever it lies."""
        query = b"?limit=100" if newest else b"?limit=1&before=%d" % (post_id + 1)
        reply = await self._client.request(b"GET", b"/feeds/" + follower.encode() + query)
        if reply.status != 200:
            raise Failed(f"status {reply.status}")
        try:
            return post_id in _decode(reply.body).post_ids
        except msgspec.DecodeError:
            raise Failed("malformed") from None

    async def check(self) -> None:
        """Every accepted post in the feeds of its sample; what is not there is waited for."""
        if self._watching:
            await asyncio.wait(self._watching)
        give_up = time.perf_counter() + self._plan.settle
        pairs = (
            (post.post_id, follower) for post in self._tally.posts for follower in post.followers
        )
        await for_each(pairs, lambda pair: self._look(*pair, give_up))

    async def _look(self, post_id: int, follower: str, give_up: float) -> None:
        tally = self._tally
        while True:
            try:
                if await self._shows(post_id, follower):
                    tally.checked += 1
                    return
                if time.perf_counter() >= give_up:
                    tally.checked += 1
                    tally.lost += 1
                    tally.examples = [*tally.examples, (post_id, follower)][:LOST_SHOWN]
                    return
            except Failed:
                if time.perf_counter() >= give_up:
                    tally.unchecked += 1
                    return
            await asyncio.sleep(POLL)


def _pair(pair: Sequence[str]) -> bytes:
    return _encode({"follower_id": pair[0], "followee_id": pair[1]})
