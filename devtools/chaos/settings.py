"""Processes under chaos: the local stack's settings and an app that misbehaves on demand.

No hook of it is in production code: everything is patched from outside when this app starts.
"""

from __future__ import annotations

from devtools.chaos import clock
from devtools.chaos.environment import mutants
from devtools.probe.settings import *  # noqa: F403
from eventsite.composition import install

clock.shift()

# First: what it wraps must not have been taken by a task before.
install(globals(), "devtools.chaos", first=True)

if "idle-timeout-off" in mutants():
    DATABASES["default"]["OPTIONS"]["options"] = "-c lock_timeout=5000"  # noqa: F405

# Small, so that a scenario of seconds fills windows and has authors above and below the threshold.
FEED_WINDOW = 30
FEED_MERGE_FOLLOWERS = 8
# A relay that was killed keeps its claims for this long.
RELAY |= {"lease": 3.0, "lease_every": 0.5}  # noqa: F405
