"""The tests' settings with the app of WebSockets."""

from devtools.testing.settings import *  # noqa: F403
from eventsite.composition import install

install(globals(), "devtools.testing.sockets")
# By name: the local settings allow any, so that no Origin would be a foreign one.
ALLOWED_HOSTS = ["127.0.0.1", "shop.example"]
