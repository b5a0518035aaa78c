"""The hot paths without the gateway around them: what it costs is the difference."""

from channels.routing import ProtocolTypeRouter

from eventsite.asgi import hot_paths
from eventsite.web.gateway.lifespan import lifespan

application = ProtocolTypeRouter(
    {"http": hot_paths, "lifespan": lifespan(at_end=[hot_paths.close])}
)
