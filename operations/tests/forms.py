"""Forms of the page, sent as a browser sends them."""

from __future__ import annotations

import re

from devtools.testing.web import Answer, Web

__all__ = ["fields_of", "post", "send"]


def fields_of(page: Answer) -> dict[str, str]:
    """The hidden fields of its form, but for Django's token; a name that comes twice once."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.body.decode())
    return {name: value for name, value in found if name != "csrfmiddlewaretoken"}


def post(web: Web, page: Answer, path: str, form: str, headers: dict[str, str]) -> Answer:
    """A form of a page, `form` as it is encoded, with the page's token."""
    [token] = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.body.decode()))
    [cookie] = re.findall(r"csrftoken=\w+", page.header("set-cookie"))
    return send(web, path, f"csrfmiddlewaretoken={token}&{form}", headers, cookie=cookie)


def send(web: Web, path: str, form: str, headers: dict[str, str], *, cookie: str = "") -> Answer:
    """The same with no token but one that `form` has."""
    return web.request(
        "POST",
        path,
        body=form.encode(),
        headers={
            **headers,
            "Cookie": f"{headers.get('Cookie', '')}; {cookie}".strip("; "),
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
