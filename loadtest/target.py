"""Whether the address of a load is a web process of ours: nobody else's program is to get orders."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from loadtest.client import Client, Failed, run_with

__all__ = ["NotOurs", "ask_target"]

PATH = b"/health/ready"
ANSWERS_WITHIN = 5.0  # seconds, for the connection and again for the answer


class NotOurs(Exception):
    """The message is a sentence for the person who gave the address."""


class _Ready(msgspec.Struct):
    """What /health/ready answers, well or not."""

    status: str
    checks: dict[str, str]


def ask_target(url: str, *, headers: Mapping[str, str]) -> None:
    """Ask for the target's health. A process of ours that is not well passes: to load one may be
    the purpose. Raises NotOurs."""
    client = Client(url, timeout=ANSWERS_WITHIN, headers=headers)
    try:
        status, body = run_with(client, client.request(b"GET", PATH))
    except Failed as failure:
        raise NotOurs(f"{url} does not answer ({failure.kind}).") from None
    try:
        ready = msgspec.json.decode(body, type=_Ready)
    except msgspec.DecodeError:
        ready = None
    if status not in (200, 503) or ready is None or "database" not in ready.checks:
        raise NotOurs(
            f"{url} is not a server of this project: GET {PATH.decode()} was answered {status} and not with its"
            " health."
        )
