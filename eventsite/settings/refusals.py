"""What production settings refuse, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

__all__ = ["refusals"]

SECRET_LENGTH = 32
# One in ten million keys of 32 random hexadecimal digits has fewer than eight different ones.
SECRET_VARIETY = 8
OFF = ("", "0", "false", "no", "off")
# What Django's startproject and our local settings call theirs.
NO_SECRETS = ("django-insecure-", "local-stack-only")


def refusals(
    *,
    secret_key: str,
    allowed_hosts: Sequence[str],
    csrf_trusted_origins: Sequence[str],
    websocket_origins: Sequence[str],
    sends: bool,
    ops_token: str,
    debug: str = "",
    opens_the_api: bool = False,
) -> list[str]:
    """One sentence for each variable that is missing or unsafe; empty when all is well. `sends`: it is
    said who sends notifications. `debug`: as it is written. `opens_the_api`: somebody wants no keys."""
    found = []
    if not secret_key:
        found.append("DJANGO_SECRET_KEY is not set: give it 50 random characters.")
    elif not _is_secret(secret_key):
        found.append(
            f"DJANGO_SECRET_KEY can be guessed: give it at least {SECRET_LENGTH} random characters."
        )
    if not allowed_hosts:
        found.append("ALLOWED_HOSTS is not set: name the hosts you serve, separated by commas.")
    if wide := [host for host in allowed_hosts if "*" in host or host.startswith(".")]:
        found.append(f"ALLOWED_HOSTS has wildcards ({', '.join(wide)}): name each host.")
    if wide := [origin for origin in csrf_trusted_origins if "*" in origin]:
        found.append(f"CSRF_TRUSTED_ORIGINS has wildcards ({', '.join(wide)}): name each origin.")
    if wide := [origin for origin in websocket_origins if "*" in origin]:
        found.append(f"WEBSOCKET_ORIGINS has wildcards ({', '.join(wide)}): name each origin.")
    found += _opened(debug, opens_the_api=opens_the_api)
    if not sends:
        found.append(
            "Neither PROVIDERS nor WEBHOOK_URL is set, so no provider sends notifications. Set one;"
            ' PROVIDERS={"log": {"kind": "log"}} only logs them.'
        )
    if ops_token and not _is_secret(ops_token):
        found.append(
            f"OPS_TOKEN can be guessed: give it at least {SECRET_LENGTH} random characters, or none."
        )
    return found


def _opened(debug: str, *, opens_the_api: bool) -> Iterator[str]:
    if debug.strip().lower() not in OFF:
        yield "DEBUG is on: its pages show settings and source. Unset it."
    if opens_the_api:
        yield "API_KEYS_REQUIRED is off, but production always requires a key. Unset it."


def _is_secret(key: str) -> bool:
    """Long, of many characters, and neither a repeated word nor a row such as 0123456789abcdef."""
    steps = {ord(after) - ord(before) for before, after in pairwise(key)}
    return (
        len(key) >= SECRET_LENGTH
        and len(set(key)) >= SECRET_VARIETY
        and len(steps) >= SECRET_VARIETY
        and not _repeats(key)
        and not key.startswith(NO_SECRETS)
    )


def _repeats(text: str) -> bool:
    """Whether it is one piece again and again, the last time perhaps in part."""
    return any(text[period:] == text[:-period] for period in range(1, len(text) // 2 + 1))
