"""Who may see the page: staff with a session of the admin, and for reading anybody with the token.

A viewer who was looked up a moment ago is not looked up again. While PostgreSQL is unavailable such a
viewer still sees the page, without its actions, because the page is needed most then.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, replace
from functools import cache

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_permission_codename, get_user
from django.core import signing
from django.core.cache.backends.locmem import LocMemCache
from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest

from outbox.database import patience

__all__ = [
    "COOKIE",
    "COOKIE_SECONDS",
    "MayNot",
    "NotKnown",
    "Unasked",
    "Viewer",
    "cookie_for_token",
    "is_token",
    "viewer_of",
]

COOKIE = "ops_break_glass"
COOKIE_SECONDS = 3600
_SALT = "operations.break-glass"
ASKED_AGAIN_SECONDS = 5.0
KNOWN_SECONDS = 600.0  # for which a viewer is remembered while PostgreSQL is unavailable
KNOWN = 1000  # viewers at most
ANSWER_SECONDS = 1.0
_BEARER = "Bearer "


class NotKnown(Exception):
    """Nobody is logged in."""


class MayNot(Exception):
    """The user who is logged in is not staff or has not the permission. The message is shown to the user."""


class Unasked(Exception):
    """PostgreSQL is unavailable, so the viewer is unknown."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks. `permissions`: as Django names them; empty with the token and without PostgreSQL."""

    name: str
    permissions: frozenset[str] = frozenset()

    def may(self, permission: str) -> bool:
        return permission in self.permissions

    def needs(self, permission: str) -> None:
        """Raises MayNot for a viewer without the permission."""
        if not self.may(permission):
            raise MayNot(f"You need the permission {permission}.")

    @property
    def acts(self) -> bool:
        """Whether the viewer has a permission for some action."""
        return any(
            permission.partition(".")[2].startswith("change_") for permission in self.permissions
        )


# Digest of a session's id -> its viewer, and when PostgreSQL was asked.
_known = LocMemCache("viewers", {"timeout": None, "max_entries": KNOWN})


def viewer_of(request: HttpRequest, *, anew: bool = False) -> Viewer:
    """The viewer who sent the request; `anew`: ask PostgreSQL now. Raises NotKnown, MayNot or Unasked."""
    if _has_token(request):
        return Viewer("break-glass token")
    session = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    if not session:
        raise NotKnown
    key = hashlib.sha256(session.encode()).hexdigest()
    seen: tuple[Viewer | None, float] = _known.get(key, (None, 0.0))
    known, age = seen[0], time.monotonic() - seen[1]
    if known and age < ASKED_AGAIN_SECONDS and not anew:
        return known
    try:
        with patience.within(ANSWER_SECONDS):
            if patience.is_silent():
                raise InterfaceError
            viewer = _ask(request)
    except (DatabaseError, InterfaceError) as error:
        connection.close()
        if known and age < KNOWN_SECONDS and not anew:
            return replace(known, permissions=frozenset())
        raise Unasked from error
    except (NotKnown, MayNot):
        _known.delete(key)
        raise
    _known.set(key, (viewer, time.monotonic()))
    return viewer


def is_token(text: str) -> bool:
    """Whether the text is the token of operators; always false if none is set."""
    return bool(settings.OPS_TOKEN) and hmac.compare_digest(
        text.encode(), settings.OPS_TOKEN.encode()
    )


def cookie_for_token() -> str:
    """The cookie of a browser that has sent the token; valid for an hour, or until the token changes."""
    return signing.dumps(_fingerprint(), salt=_SALT)


def _has_token(request: HttpRequest) -> bool:
    given = request.headers.get("Authorization", "")
    if given.startswith(_BEARER) and is_token(given.removeprefix(_BEARER).strip()):
        return True
    try:
        kept = signing.loads(request.COOKIES.get(COOKIE, ""), salt=_SALT, max_age=COOKIE_SECONDS)
    except signing.BadSignature:
        return False
    return bool(settings.OPS_TOKEN) and kept == _fingerprint()


def _fingerprint() -> str:
    return hashlib.sha256(settings.OPS_TOKEN.encode()).hexdigest()


def _ask(request: HttpRequest) -> Viewer:
    user = get_user(request)
    if not user.is_authenticated:
        raise NotKnown
    if not user.is_active or not user.is_staff:
        raise MayNot("This page is for the staff.")
    given = _every_permission() if user.is_superuser else frozenset(user.get_all_permissions())
    return Viewer(user.get_username(), given)


@cache
def _every_permission() -> frozenset[str]:
    """All permissions; a superuser has them whatever the table of permissions holds."""
    return frozenset(
        f"{model._meta.app_label}.{get_permission_codename(action, model._meta)}"
        for model in apps.get_models()
        for action in model._meta.default_permissions
    )
