"""Make, list, rotate and revoke API keys."""

from __future__ import annotations

import getpass
import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apikeys import services
from apikeys.models import ApiKey
from apikeys.services import InvalidKey, NewKey
from outbox.envelope import rfc3339

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DURATION = re.compile(r"(\d{1,6})([smhd])")


class Command(BaseCommand):
    """The key goes to standard output, alone on its line and once; everything else that create and
    rotate say goes to standard error, so that a pipe carries the key alone."""

    help = "Manages API keys: create, list, rotate (a second key beside the old one), revoke (within a second)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="prints the key, once")
        create.add_argument(
            "name", help="the caller's name: the actor in histories and the owner of the limit"
        )
        create.add_argument(
            "--scope", action="append", required=True, help=" ".join(settings.API_SCOPES)
        )
        create.add_argument("--expires-in", type=duration, metavar="90d", help="default: never")
        listing = actions.add_parser("list", help="one line per key")
        listing.add_argument("name", nargs="?", default="")
        rotate = actions.add_parser("rotate", help="prints the new key, once")
        rotate.add_argument("prefix")
        rotate.add_argument(
            "--grace",
            type=duration,
            default=timedelta(days=1),
            metavar="1d",
            help="how long the old key still works",
        )
        revoke = actions.add_parser(
            "revoke", help="revoke a key; it is refused everywhere within a second"
        )
        revoke.add_argument("prefix")
        for changing in (create, rotate, revoke):
            changing.add_argument("--by", default="", help="default: the user of this system")

    def handle(self, *args: Any, **options: Any) -> None:
        now, by = timezone.now(), options.get("by") or getpass.getuser()
        try:
            match options["action"]:
                case "create":
                    within = options["expires_in"]
                    new = services.create_key(
                        name=options["name"],
                        scopes=options["scope"],
                        expires_at=now + within if within is not None else None,
                        by=by,
                        at=now,
                    )
                    self._show(new)
                case "rotate":
                    prefix, grace = options["prefix"], options["grace"]
                    self._show(services.rotate_key(prefix=prefix, grace=grace, by=by, at=now))
                case "revoke":
                    done = services.revoke_key(prefix=options["prefix"], by=by, at=now)
                    self.stdout.write("Revoked." if done else "It was already revoked.")
                case _:
                    rows = ApiKey.objects.order_by("name", "id")
                    for row in rows.filter(name=name) if (name := options["name"]) else rows:
                        self.stdout.write(_line(row, now))
        except InvalidKey as error:
            raise CommandError(str(error)) from error

    def _show(self, new: NewKey) -> None:
        self.stderr.write(f"Key of {new.row.name}; it is not shown again:")
        self.stdout.write(new.key)


def duration(text: str) -> timedelta:
    """90d, 12h, 15m, 30s. Raises ArgumentTypeError."""
    found = DURATION.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is not a duration like 90d, 12h, 15m or 30s")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def _line(row: ApiKey, now: datetime) -> str:
    if row.revoked_at is not None:
        state = f"revoked {rfc3339(row.revoked_at)}"
    elif row.expires_at is None:
        state = "live"
    else:
        word = "expires" if row.expires_at > now else "expired"
        state = f"{word} {rfc3339(row.expires_at)}"
    used = rfc3339(row.last_used_at) if row.last_used_at else "never"
    return f"{row.prefix}  {row.name}  {state}  used {used}  {' '.join(row.scopes)}"
