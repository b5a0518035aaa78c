"""Somebody who acts on the page, over real HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlencode

from django.contrib.auth.models import User

from devtools.testing.web import Answer, Web
from operations.tests.forms import fields_of, post
from operations.tests.people import cookie_of

__all__ = ["Operator"]


@dataclass
class Operator:
    """Somebody at a browser, in one session."""

    web: Web
    user: User

    @cached_property
    def headers(self) -> dict[str, str]:
        return cookie_of(self.user)

    def look(self, path: str) -> Answer:
        return self.web.get(path, **self.headers)

    def act(self, path: str, why: str = "a look", **more: str) -> Answer:
        """Opens the form and sends it."""
        page = self.look(path)
        assert page.status == 200, page.body
        return self.confirm(page, path, why, **more)

    def confirm(self, page: Answer, path: str, why: str = "a look", **more: str) -> Answer:
        form = urlencode({**fields_of(page), "why": why, **more})
        return post(self.web, page, path.partition("?")[0], form, self.headers)
