"""Run the Kafka bridges of one, several or all handlers of the event map."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from typing import Any

import structlog
from celery import current_app
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from outbox.bridge.bridge import Bridge
from outbox.declaration import Route
from outbox.management.words import routes_named
from outbox.process import gc_tuning, ops_server
from outbox.process.watchdog import StopFlag, ThreadProgress, Watchdog

log = structlog.get_logger("outbox.bridge")


class Command(BaseCommand):
    """One thread and one group member a handler. SIGTERM finishes what is in flight, then exits 0.

    A thread that has not cycled for WATCHDOG_SECONDS ends the process, to be started again.
    """

    help = "Reads Kafka and sends Celery tasks to the handlers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--handler", action="append", metavar="NAME", help="default: all")

    def handle(self, *args: Any, **options: Any) -> None:
        routes = routes_named(options["handler"])
        stop = StopFlag()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        gc_tuning.tune_gc()
        # Made before there are threads: two of them making it at once may fail in kombu.
        assert current_app.amqp.producer_pool
        failures: list[Exception] = []
        bridges: list[Bridge] = []
        threads = [
            threading.Thread(target=_run, args=(route, stop, bridges, failures), name=route.handler)
            for route in routes
        ]
        for thread in threads:
            thread.start()
        watchdog = Watchdog("bridge", ThreadProgress(stop, threads))
        watchdog.start()
        ops_server.serve_in_background(
            "bridge",
            is_well=watchdog.is_well,
            own_checks={"partitions": lambda: all(bridge.reads_all for bridge in bridges)},
        )
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.2)
        if failures:
            raise CommandError(str(failures[0]))


def _run(
    route: Route, stop: threading.Event, bridges: list[Bridge], failures: list[Exception]
) -> None:
    """One bridge; if it fails, all stop and the process is started again from the positions."""
    try:
        bridge = Bridge(route, stop=stop)
        bridges.append(bridge)
        bridge.run()
    except Exception as error:
        log.exception("bridge_failed", handler=route.handler)
        failures.append(error)
    finally:
        stop.set()
        connection.close()
