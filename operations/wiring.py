"""The paths of the page of operators."""

from __future__ import annotations

from restapi.declaration import App, Path

__all__ = ["WIRING"]


def _page(pattern: str) -> Path:
    """For people with a session, also while everything else waits for a server."""
    return Path(pattern=pattern, keyed=False, apart=True)


WIRING = App(
    urls="operations.urls",
    paths=(
        Path(pattern="ops", keyed=False),
        _page("ops/"),
        _page("ops/live"),
        _page("ops/status.json"),
        Path(pattern="ops/journey", keyed=False),
        _page("ops/break-glass"),
    ),
)
