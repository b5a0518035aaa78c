"""Its WebSocket and its status log."""

from __future__ import annotations

from restapi.declaration import App, Path, Socket

__all__ = ["WIRING"]

WIRING = App(
    sockets=(
        Socket(path=Path(pattern="ws/ticks"), consumer="devtools.testing.ticks.consumers.Ticks"),
    ),
    status_logs=("devtools.testing.ticks.log.TICKS",),
)
