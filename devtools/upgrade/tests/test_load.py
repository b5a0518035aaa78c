"""Customers go on until they are answered, and notice what a repetition gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

from devtools.testing.pipeline import settles
from devtools.upgrade.load import Crowd, Doors, Promises


@contextmanager
def shop(*, forgets: bool) -> Iterator[tuple[str, dict[str, int]]]:
    """A server that has each second request wait, and knows a key again unless it forgets."""
    asked: dict[str, int] = {}
    kept: dict[tuple[str, str], bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key = self.headers["Idempotency-Key"]
            asked[key] = asked.get(key, 0) + 1
            if asked[key] == 1 and len(asked) % 2:
                self.send_response(503)
                self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            # The ids of whatever was asked for.
            names = ("order_id", "event_id", "post_id_str", "id")
            body = json.dumps(dict.fromkeys(names, str(uuid4()))).encode()
            if not forgets:
                body = kept.setdefault((self.path, key), body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def served(address: str) -> Promises:
    with Crowd(Doors(every=(address,), todays=(address,))) as crowd:
        told = crowd.promises
        assert settles(
            lambda: (
                told.repeated > 2
                and len(told.orders) > 5
                and told.asked_again > 1
                and bool(told.delivered)
            )
        )
    return crowd.promises


def test_a_request_is_sent_until_it_is_answered_under_one_key() -> None:
    with shop(forgets=False) as (address, asked):
        told = served(address)
    assert told.refused == []
    assert told.differing == []
    done = (told.orders, told.paid, told.delivered, told.posts, told.follows, told.notifications)
    assert len(asked) == sum(map(len, done))


def test_a_repetition_that_is_done_again_is_seen() -> None:
    with shop(forgets=True) as (address, _):
        told = served(address)
    assert told.differing
