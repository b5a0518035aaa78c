"""What an app declares to the web process, beside what it declares to the platform."""

from __future__ import annotations

from dataclasses import dataclass, field

from outbox.declaration import Backbone

__all__ = ["App", "Path", "Socket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One path of the routing table: who may call it, and what the gateway does around it.

    pattern  as Django writes it, without the first slash
    view     dotted path of the view class that answers it; "": the app's URL configuration says
    keyed    whether API keys are looked at; required or not is a setting
    read     scope of GET, HEAD and OPTIONS; "": any key will do
    write    scope of every other method; "": as `read` (the answer is a 405 then)
    limited  whether it counts towards the caller's rate
    max_body_bytes  of a request; 0: the setting MAX_BODY_BYTES
    apart   answered on threads of its own: what hangs elsewhere does not hold it up
    label    name of the path in metrics, log and spans: the pattern, and / for the empty one
    """

    pattern: str
    view: str = ""
    keyed: bool = True
    read: str = ""
    write: str = ""
    limited: bool = True
    max_body_bytes: int = 0
    apart: bool = False
    label: str = field(init=False)

    def __post_init__(self) -> None:
        # Once, not for each request; Prometheus takes an empty label for none.
        object.__setattr__(self, "label", self.pattern or "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """A WebSocket path and its Channels consumer.

    path      as in Path, with its key and scope; a handshake is a read
    consumer  dotted path of the consumer class, which is an asynchronous one
    takes     kinds of message that a client may send: "text", "binary"; any other closes it (1003)
    """

    path: Path
    consumer: str
    takes: tuple[str, ...] = ("text",)


@dataclass(frozen=True, kw_only=True)
class App(Backbone):
    """One app's whole declaration.

    urls       dotted path of a URL configuration, for paths that need names or are answered by functions
    paths      every path that it serves
    hot_paths  dotted paths of what is answered before Django: HotPath, HotRead, HotLookup or HotConstant
    sockets    its WebSockets
    status_logs  dotted paths of its logs that WebSockets follow: StatusLog (restapi/status_log.py)
    grants     scopes that a key can have beside those that its paths ask for; the app asks for them
               itself (is_granted of restapi/context.py)
    tag        the heading of its endpoints in the API's document
    """

    urls: str = ""
    paths: tuple[Path, ...] = ()
    hot_paths: tuple[str, ...] = ()
    sockets: tuple[Socket, ...] = ()
    status_logs: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    tag: str = ""

    @property
    def scopes(self) -> tuple[str, ...]:
        """Scopes that its paths or it itself ask for, each once."""
        paths = (*self.paths, *(socket.path for socket in self.sockets))
        found = (scope for path in paths for scope in (path.read, path.write) if scope)
        return tuple(dict.fromkeys([*found, *self.grants]))
