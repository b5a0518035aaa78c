"""Pause and resume channels while everything runs."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from notifications.delivery.channels import (
    UnknownChannel,
    channel_statuses,
    pause_channel,
    resume_channel,
)
from notifications.models import ChannelControl
from outbox.envelope import rfc3339


class Command(BaseCommand):
    """Durable, without a restart. What is of a paused channel waits, but no longer than it may: what is over
    its time has failed."""

    help = "Channels of notifications: list, pause NAME --reason TEXT, resume NAME."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("list", help="one line per channel")
        pause = actions.add_parser(
            "pause", help="pause a channel; when the command returns, nothing of it is claimed"
        )
        pause.add_argument("--reason", required=True)
        resume = actions.add_parser(
            "resume", help="resume a channel; its waiting notifications are sent at once"
        )
        resume.add_argument("--reason", default="", help="kept with the name of who did it")
        for action in (pause, resume):
            action.add_argument("channel", metavar="NAME")
            action.add_argument("--by", default="", help="default: the user of this system")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "list":
            for status in channel_statuses():
                self.stdout.write(_line(status))
            return
        channel, by, reason = options["channel"], options["by"], options["reason"]
        by = by or getpass.getuser()
        try:
            if options["action"] == "pause":
                under_way = pause_channel(channel, reason=reason, by=by)
                self.stdout.write(f"{channel} is paused; {under_way} attempts still run.")
            else:
                resume_channel(channel, reason=reason, by=by)
                self.stdout.write(f"{channel} is resumed.")
        except UnknownChannel as error:
            raise CommandError(str(error)) from error
        except OperationalError as error:
            raise CommandError(
                f"Nothing was changed: a worker is claiming notifications ({error}). Try again."
            ) from error


def _line(status: ChannelControl) -> str:
    if not status.paused:
        return f"{status.channel}  running"
    since = rfc3339(status.changed_at)
    return f"{status.channel}  paused since {since} by {status.changed_by}: {status.reason}"
