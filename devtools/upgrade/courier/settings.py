"""The probe's settings with the courier."""

from devtools.probe.settings import *  # noqa: F403
from eventsite.composition import install

# It says that an event type takes two releases; what happens to who does it in one is what is tried.
SILENCED_SYSTEM_CHECKS = ["eventsite.E001"]
# Seconds. Some events of the type must still wait, and some be parked, when new code comes.
OUTBOX_UNKNOWN_TYPE_WAIT = 3.0

install(globals(), "devtools.upgrade.courier")
