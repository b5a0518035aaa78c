"""The local stack's settings with the order probe: for the demo, chaos, benchmarks and tests."""

from eventsite.composition import install
from eventsite.settings.local import *  # noqa: F403

# Whoever counts every event has no use for some that nobody has caused.
CANARY = False

install(globals(), "devtools.probe")
