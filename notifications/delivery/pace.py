"""The limit of each channel as a sender keeps to it: tokens of Redis, or a share while it is lost."""

from __future__ import annotations

import redis
import structlog
from django.conf import settings

from notifications import metrics
from notifications.models import Channel
from outbox import redis_client
from outbox.pacing.limiter import Draw, LocalShare, PacedLimiter

__all__ = ["SHARES", "Pace"]

SHARES = {"high": 7, "normal": 2, "low": 1}  # of ten tokens, when all wait
AWAY_SECONDS = 3.0  # that a lost Redis is not asked again

log = structlog.get_logger("notifications.pace")


class Pace:
    """Of one priority in one process; belongs to one thread."""

    def __init__(self, priority: str, *, server: redis.Redis | None = None) -> None:
        self._priority = priority
        self._limit = float(settings.RATE_LIMIT_PER_CHANNEL)
        self._limiters = {
            channel: PacedLimiter(channel, per_second=self._limit, shares=SHARES, server=server)
            for channel in Channel.values
        }
        self._shares = {channel: LocalShare() for channel in Channel.values}
        self.is_lost = False

    def draw(self, channel: str, wanted: int, *, senders: int) -> Draw:
        """Tokens for a channel. While Redis is lost, those of limit / senders alive."""
        if not redis_client.lost_lately(AWAY_SECONDS):
            try:
                draw = self._limiters[channel].draw(self._priority, wanted)
            except redis.RedisError as error:
                self._note_lost(error)
            else:
                self._note_back()
                return draw
        self._begin_alone()
        return self._shares[channel].draw(wanted, per_second=self._limit / max(1, senders))

    def give_back(self, channel: str, draw: Draw, count: int) -> None:
        """Give back unused tokens. If Redis does not get the command, they count as used."""
        if not count:
            return
        if not draw.request:
            self._shares[channel].give_back(count)
            return
        try:
            self._limiters[channel].give_back(draw, self._priority, count)
        except redis.RedisError as error:
            self._note_lost(error)

    def _note_lost(self, error: redis.RedisError) -> None:
        redis_client.note_lost(error)
        self._begin_alone()

    def _begin_alone(self) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        for share in self._shares.values():
            share.begin_empty()
        metrics.PACED_WITHOUT_REDIS.set(1)

    def _note_back(self) -> None:
        redis_client.note_back()
        if self.is_lost:
            self.is_lost = False
            metrics.PACED_WITHOUT_REDIS.set(0)
