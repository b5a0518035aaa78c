"""A browser in which somebody of the page is logged in, for tests that look at it there."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import User

from devtools.testing.browser import Tab
from operations.tests.people import cookie_of

__all__ = ["logged_in"]


def logged_in(tab: Tab, port: int) -> str:
    """The address of the site at this port, for a new operator with every permission."""
    cookie = cookie_of(User.objects.create_superuser("operator"))["Cookie"]
    address = f"http://127.0.0.1:{port}"
    tab.log_in(address, {settings.SESSION_COOKIE_NAME: cookie.partition("=")[2]})
    return address
