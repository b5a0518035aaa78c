"""The paths of the page of operators."""

from __future__ import annotations

from outbox.declaration import Every
from restapi.declaration import App, Path, Socket

__all__ = ["WIRING"]


def _page(pattern: str) -> Path:
    """A path without an API key; it is served apart, so requests that wait for a server do not delay it."""
    return Path(pattern=pattern, keyed=False, apart=True)


WIRING = App(
    beat=(
        Every(1.0, "operations.work_on_runs"),
        Every(10.0, "operations.send_canaries"),
        Every(20.0, "operations.note_minute"),
    ),
    urls="operations.urls",
    paths=(
        Path(pattern="ops", keyed=False),
        _page("ops/"),
        _page("ops/live"),
        _page("ops/charts"),
        _page("ops/status.json"),
        Path(pattern="ops/journey", keyed=False),
        Path(pattern="ops/act/<str:name>", keyed=False),
        Path(pattern="ops/done/<str:entry_id>", keyed=False),
        Path(pattern="ops/done/<str:entry_id>/live", keyed=False),
        Path(pattern="ops/letters", keyed=False),
        Path(pattern="ops/letters/<str:letter_id>", keyed=False),
        Path(pattern="ops/relay-letters", keyed=False),
        Path(pattern="ops/relay-letters/<str:letter_id>", keyed=False),
        Path(pattern="ops/lanes", keyed=False),
        _page("ops/break-glass"),
    ),
    sockets=(
        Socket(
            path=Path(pattern="ops/ws", keyed=False),
            consumer="operations.consumers.LivePage",
            takes=(),
        ),
    ),
)
