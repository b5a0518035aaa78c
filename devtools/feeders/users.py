"""Users of feeds, over HTTP: each thread has some of them, and acts for them one after the other."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from devtools.feeders.history import FeedHistory, Kind, SeenPage, UserChange

__all__ = ["FeederClient", "Mix", "Users", "feeding", "walk"]

PATIENCE_SECONDS = 30.0
PAGE = 20


class NoAnswer(Exception):
    """Nobody knows what became of the request."""


class FeederClient:
    """One connection, opened again when it was lost."""

    def __init__(self, base_url: str) -> None:
        self._netloc = urlsplit(base_url).netloc
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any, str]:
        """Status, body and X-Cache. Raises NoAnswer."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._netloc, timeout=PATIENCE_SECONDS)
        try:
            self._connection.request(
                method,
                path,
                None if body is None else json.dumps(body),
                {"Content-Type": "application/json"},
            )
            answer = self._connection.getresponse()
            text = answer.read()
            return (
                answer.status,
                json.loads(text) if text else None,
                answer.headers.get("X-Cache", ""),
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise NoAnswer(str(error)) from error

    def close(self) -> None:
        """Open another connection for the next request."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Shares of what users do; the rest are reads. `stars` are followed and unfollowed more often."""

    post: float = 0.2
    delete: float = 0.05
    follow: float = 0.12
    unfollow: float = 0.08
    stars: int = 2


@dataclass(slots=True)
class Users:
    """Somebody who acts for these users, one request after the other, and keeps what came of it. A
    request without an answer may be made again: each has the same effect twice as once."""

    client: FeederClient
    history: FeedHistory
    names: Sequence[str] = ()

    def post(self, user: str) -> int:
        """The id of a new post; 0: there was no answer."""
        begin = time.monotonic()
        answer = self._change("POST", "/posts", {"author_id": user, "content": "words"}, 202)
        post_id = int(answer["post_id"]) if answer else 0
        self._note(Kind.POST, user, begin, answer, post_id=post_id)
        return post_id

    def delete(self, user: str, post_id: int) -> bool:
        """Whether it was answered; so with the other two."""
        begin = time.monotonic()
        answer = self._change("DELETE", f"/posts/{post_id}", None, 200)
        return self._note(Kind.DELETE, user, begin, answer, post_id=post_id)

    def follow(self, user: str, author: str) -> bool:
        begin = time.monotonic()
        answer = self._change("POST", "/follow", _pair(user, author), 200)
        return self._note(Kind.FOLLOW, user, begin, answer, author=author)

    def unfollow(self, user: str, author: str) -> bool:
        begin = time.monotonic()
        answer = self._change("DELETE", "/follow", _pair(user, author), 200)
        return self._note(Kind.UNFOLLOW, user, begin, answer, author=author)

    def read(self, user: str) -> None:
        """The newest page."""
        begin = time.monotonic()
        try:
            status, page, cached = self.client.ask("GET", f"/feeds/{user}?limit={PAGE}")
        except NoAnswer:
            return
        if status == 200:
            ids, whole = tuple(page["post_ids"]), page["next_before"] is None
            self.history.pages.append(
                SeenPage(user, begin, time.monotonic(), ids, whole, cached == "HIT")
            )

    def _change(self, method: str, path: str, body: object, wanted: int) -> Any:
        """The answer; None: it was another one, or none."""
        try:
            status, answer, _ = self.client.ask(method, path, body)
        except NoAnswer:
            return None
        return answer if status == wanted else None

    def _note(
        self,
        kind: Kind,
        user: str,
        begin: float,
        answer: Any,
        *,
        author: str = "",
        post_id: int = 0,
    ) -> bool:
        done = answer is not None
        self.history.changes.append(
            UserChange(kind, user, begin, time.monotonic(), done, author, post_id)
        )
        return done


@dataclass(slots=True)
class _Chance:
    """What users do next, by chance."""

    users: Users
    everybody: Sequence[str]
    mix: Mix
    chooser: random.Random
    living: list[tuple[str, int]] = field(default_factory=list)
    followed: set[tuple[str, str]] = field(default_factory=set)

    def act(self) -> None:
        """One request, or none where there is nothing to delete."""
        mix = self.mix
        shares = (mix.post, mix.delete, mix.follow, mix.unfollow)
        deeds = (self._post, self._delete, self.follow, self._unfollow, self._read)
        [deed] = self.chooser.choices(deeds, (*shares, 1 - sum(shares)))
        deed()

    def _post(self) -> None:
        user = self.chooser.choice(self.users.names)
        if post_id := self.users.post(user):
            self.living.append((user, post_id))

    def _delete(self) -> None:
        if self.living:
            place = self.chooser.randrange(len(self.living))
            if self.users.delete(*self.living[place]):
                self.living.pop(place)

    def follow(self) -> None:
        """Somebody, whom he did not follow."""
        stars = self.everybody[: self.mix.stars]
        pair = (
            self.chooser.choice(self.users.names),
            self.chooser.choice(self.chooser.choice((stars, self.everybody))),
        )
        if pair[0] != pair[1] and pair not in self.followed and self.users.follow(*pair):
            self.followed.add(pair)

    def _unfollow(self) -> None:
        if self.followed:
            pair = self.chooser.choice(sorted(self.followed))
            if self.users.unfollow(*pair):
                self.followed.discard(pair)

    def _read(self) -> None:
        self.users.read(self.chooser.choice(self.everybody))


def _pair(user: str, author: str) -> dict[str, str]:
    return {"follower_id": user, "followee_id": author}


@contextmanager
def feeding(
    base_url: str,
    everybody: Sequence[str],
    *,
    rate: float,
    threads: int = 2,
    mix: Mix | None = None,
    follows: int = 0,
    at_least: int = 0,
    seed: int = 1,
) -> Iterator[FeedHistory]:
    """These users act until the end of the block, `rate` times a second in all; each begins by following
    so many others. On a slow machine it ends later: once every thread has acted `at_least` so often."""
    history = FeedHistory()
    stop = threading.Event()

    def act(number: int) -> None:
        client = FeederClient(base_url)
        chance = _Chance(
            Users(client, history, everybody[number::threads]),
            everybody,
            mix or Mix(),
            random.Random(seed * 100 + number),  # noqa: S311  (a repeatable choice, not a secret)
        )
        deeds = itertools.chain(
            itertools.repeat(chance.follow, follows * len(chance.users.names)),
            itertools.repeat(chance.act),
        )
        for done, deed in enumerate(deeds):
            if stop.wait(threads / rate) and done >= at_least:
                break
            deed()
        client.close()

    workers = [threading.Thread(target=partial(act, n), daemon=True) for n in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield history
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def walk(client: FeederClient, user: str, *, limit: int = 50) -> list[int]:
    """A feed from the newest to the first post, page by page. Raises NoAnswer, LookupError."""
    found: list[int] = []
    before = ""
    while True:
        status, page, _ = client.ask("GET", f"/feeds/{user}?limit={limit}{before}")
        if status != 200:
            raise LookupError(f"GET /feeds/{user} is answered {status}: {page}")
        found += page["post_ids"]
        if page["next_before"] is None:
            return found
        before = f"&before={page['next_before']}"
