"""The paths of the site itself, beside those of its apps."""

from __future__ import annotations

from restapi.declaration import App, Path

__all__ = ["WIRING"]


def _of_operators(pattern: str) -> Path:
    """Asked by machines every few seconds, also when Redis or the keys cannot be asked."""
    return Path(pattern=pattern, keyed=False, limited=False)


WIRING = App(
    paths=(
        # It asks the servers what /health/ready asks, for people: so it is limited.
        Path(pattern="", keyed=False),
        _of_operators("metrics"),
        _of_operators("health"),
        _of_operators("health/ready"),
        # The document is open without a key; trying the API out needs one.
        Path(pattern="openapi.json", keyed=False),
        Path(pattern="swagger", keyed=False),
        Path(pattern="swagger/", keyed=False),
        # People with a session and a password; guessing that is limited by address.
        Path(pattern="admin", keyed=False),
        Path(pattern="admin/<path:page>", keyed=False),
        # Pages of the admin and of Swagger ask for a dozen at once.
        Path(pattern="static/<path:path>", keyed=False, limited=False),
    ),
    hot_paths=("eventsite.web.health.ALIVE",),
    tag="operations",
)
