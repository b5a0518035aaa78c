#!/usr/bin/env bash
# redis-py 8.1.0: a client made by Redis(host=...) tries a lost connection ten times more, one made by
# Redis.from_url(...) never.
#
# Seen, sync and asyncio alike: connections that a server counts for one PING when it hangs up each time:
#   Redis(host=...)        11
#   Redis.from_url(...)     1
# So whether INCR or SET NX may be applied twice after a lost answer hangs on how the client was made.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet redis==8.1.0
"$work/venv/bin/python" - <<'PYTHON'
import asyncio
import socket
import threading
from importlib.metadata import version

import redis
import redis.asyncio

listener = socket.create_server(("127.0.0.1", 0), backlog=64)
port = listener.getsockname()[1]
taken = 0


def hang_up():
    """Read the first command of each connection, answer nothing, close."""
    global taken
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        taken += 1
        connection.recv(4096)
        connection.close()


threading.Thread(target=hang_up, daemon=True).start()


def count(ping):
    global taken
    taken = 0
    try:
        ping()
    except redis.ConnectionError:
        pass
    return taken


def awaited(make):
    async def ping():
        client = make()
        try:
            await client.ping()
        finally:
            await client.aclose()

    return lambda: asyncio.run(ping())


url = f"redis://127.0.0.1:{port}/0"
seen = {
    "Redis(host=...)": count(redis.Redis(host="127.0.0.1", port=port).ping),
    "Redis.from_url(...)": count(redis.Redis.from_url(url).ping),
    "asyncio Redis(host=...)": count(
        awaited(lambda: redis.asyncio.Redis(host="127.0.0.1", port=port))
    ),
    "asyncio Redis.from_url(...)": count(
        awaited(lambda: redis.asyncio.Redis.from_url(url))
    ),
}
print("redis-py", version("redis"))
for made, connections in seen.items():
    print(f"{made:28} {connections} connections")
assert list(seen.values()) == [11, 1, 11, 1], seen
PYTHON
