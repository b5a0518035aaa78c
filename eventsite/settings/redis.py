"""The address of Redis as Celery wants it."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

__all__ = ["broker_url"]


def broker_url(url: str) -> str:
    """The same address. Celery speaks TLS only where the address says how the server's certificate is
    checked, whatever its scheme; redis-py checks it by default, and Celery should too."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme != "rediss":
        return url
    return urlunsplit(parts._replace(query=urlencode({"ssl_cert_reqs": "required"} | query)))
