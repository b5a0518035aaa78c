"""`manage.py await_version ROLE`: what an init container runs, so that a rollout keeps its order."""

from __future__ import annotations

import time
from typing import Any

import redis
from django.core.management.base import BaseCommand, CommandParser
from django.utils.text import get_text_list

from eventsite.rollout import KINDS, Version, awaited_by
from outbox import redis_client
from outbox.process.heartbeat import processes_seen

ANSWERS_WITHIN = 2.0
LOOK_SECONDS = 1.0


class Command(BaseCommand):
    """Always ends with exit code 0: the order avoids waiting, and no event depends on it. A
    failure would keep web from taking orders because a process behind it is unhealthy; thanks
    to the outbox it can."""

    help = (
        "Waits until the processes that must start before ROLE run this version: workers before"
        " bridges and beat, bridges before web. Ends without an error when the time is up."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("role", choices=sorted(KINDS))
        parser.add_argument("--seconds", type=float, default=300.0, help="at most; default: 300")

    def handle(self, *args: Any, role: str, seconds: float, **options: Any) -> None:
        version = Version.ours()
        reported: list[str] = []
        ends = time.monotonic() + seconds
        with redis_client.client(
            answers_within=ANSWERS_WITHIN, connects_within=ANSWERS_WITHIN
        ) as server:
            while lacking := _lacking(role, server, version):
                left = ends - time.monotonic()
                if left <= 0:
                    self._say(
                        f"{role} of {version} goes on after {seconds:g} s without {get_text_list(lacking, 'and')}."
                        " Nothing is lost: what they do not read yet waits in PostgreSQL and Kafka."
                    )
                    return
                if lacking != reported:
                    self._say(f"{role} of {version} waits for {get_text_list(lacking, 'and')}.")
                    reported = lacking
                time.sleep(min(LOOK_SECONDS, left))
        self._say(f"{role} of {version} may start.")

    def _say(self, sentence: str) -> None:
        self.stdout.write(sentence)
        self.stdout.flush()


def _lacking(role: str, server: redis.Redis, version: Version) -> list[str]:
    """A role that waits for no other needs no Redis."""
    if not awaited_by(role, (), version):
        return []
    try:
        return awaited_by(role, processes_seen(server), version)
    except redis.RedisError as error:
        return [f"an answer of Redis ({type(error).__name__})"]
