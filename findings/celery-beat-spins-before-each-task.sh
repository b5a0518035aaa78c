#!/usr/bin/env bash
# celery 5.7.0: beat wakes ten milliseconds before a task is due, finds that it is not, and asks again and again
# without a sleep until it is. `Scheduler.adjust` takes 10 ms off the delay that an entry names; where 10 ms
# or less are left, nothing is left to sleep. So each task costs beat up to 10 ms of a core, and ten tasks a
# second a tenth of it.
#
# Seen, with one entry each 0.25 s for 5 s, about 19 tasks:
#   the scheduler as it comes: thousands of ticks, 8 to 10 ms of processor time a task
#   with an `adjust` that returns the delay as it is: two ticks a task, a fraction of a millisecond
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet celery==5.7.0 kombu==5.7.0
cd "$work"

cat >ticks.py <<'PYTHON'
import sys
import time

from celery import Celery, beat

SECONDS = 5.0
app = Celery("ticks", broker="memory://")


@app.task(name="nothing")
def nothing():
    """Never run: the schedulers below only count."""


class AsItComes(beat.Scheduler):
    due = 0

    def apply_entry(self, entry, producer=None):
        self.due += 1


class WithoutDrift(AsItComes):
    def adjust(self, n, drift=0.0):
        return n


def ticks_of(kind):
    """Ticks for each task that was due."""
    app.conf.beat_schedule = {"each": {"task": nothing.name, "schedule": 0.25}}
    scheduler = kind(app=app)
    ticks, began, end = 0, time.process_time(), time.monotonic() + SECONDS
    while time.monotonic() < end:
        ticks += 1
        pause = scheduler.tick()
        if pause and pause > 0:  # as celery.beat.Service does it
            time.sleep(pause)
    spent = 1000 * (time.process_time() - began) / scheduler.due
    print(f"{kind.__name__}: {ticks} ticks for {scheduler.due} tasks, {spent:.2f} ms of processor time a task")
    return ticks / scheduler.due


as_it_comes, without_drift = ticks_of(AsItComes), ticks_of(WithoutDrift)
sys.exit(not (as_it_comes > 20 and without_drift < 5))
PYTHON
"$work/venv/bin/python" ticks.py
