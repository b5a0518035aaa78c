"""Its WebSockets: of a consumer that does what its client says, and of one that takes bytes."""

from __future__ import annotations

from restapi.declaration import App, Path, Socket

__all__ = ["WIRING"]

WIRING = App(
    sockets=(
        Socket(
            path=Path(pattern="ws/obey/<str:name>", read="orders:read"),
            consumer="devtools.testing.sockets.consumers.Obedient",
        ),
        Socket(
            path=Path(pattern="ws/bytes", read="orders:read"),
            consumer="devtools.testing.sockets.consumers.Bytes",
            takes=("text", "binary"),
        ),
    )
)
