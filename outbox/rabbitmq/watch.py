"""Asks Kafka beside the loop, because an answer may take seconds."""

from __future__ import annotations

import threading

import structlog

from outbox.kafka.admin import DEFAULT_MAX_MESSAGE_BYTES, KafkaUnavailable
from outbox.kafka.stream import LimitsQuestion

__all__ = ["Watch"]

_TIMEOUT = 2.0
_EVERY = 5.0  # while nobody wants to know sooner

log = structlog.get_logger("outbox.relay")


class Watch:
    """A daemon thread with one question at a time.

    is_well    what the last answer said; None before the first
    limit      bytes that the topic takes
    answers    how many questions have been answered or not
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._question = LimitsQuestion(topic)
        self._wanted = threading.Event()
        self.is_well: bool | None = None
        self.limit = DEFAULT_MAX_MESSAGE_BYTES
        self.answers = 0

    def start(self) -> None:
        threading.Thread(target=self._run, name="kafka-watch", daemon=True).start()

    def ask(self) -> None:
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._ask()
            self._wanted.wait(_EVERY)
            self._wanted.clear()

    def _ask(self) -> None:
        try:
            self.limit = self._question.ask(_TIMEOUT)
        except KafkaUnavailable as error:
            if self.is_well is not False:
                log.warning("kafka_lost", topic=self._topic, error=str(error))
            self.is_well = False
        else:
            if self.is_well is False:
                log.warning("kafka_back", topic=self._topic)
            self.is_well = True
        self.answers += 1
