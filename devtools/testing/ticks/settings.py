"""The tests' settings with the app of ticks."""

from devtools.testing.settings import *  # noqa: F403
from eventsite.composition import install

install(globals(), "devtools.testing.ticks")
