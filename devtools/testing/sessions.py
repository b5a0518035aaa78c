"""Sessions of the admin, for clients that speak HTTP themselves."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

__all__ = ["cookie_of"]


def cookie_of(user: User) -> dict[str, str]:
    """The header of a browser in which somebody is logged in."""
    client = Client()
    client.force_login(user)
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    return {"Cookie": f"{settings.SESSION_COOKIE_NAME}={session}"}
