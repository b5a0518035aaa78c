"""A handler that is added, and a bridge whose positions are moved while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from urllib.request import urlopen
from uuid import UUID

import pytest
from django.db.models import F

from devtools.probe import queries as probe_queries
from devtools.probe import services as probe_services
from devtools.probe.events import PROBE_TOPIC
from devtools.testing.installed import needs_apache_kafka
from devtools.testing.pipeline import (
    PROBE_HANDLER,
    chunks_since,
    cut_log,
    settles,
)
from devtools.testing.processes import child_environment, command_of, free_port, running
from eventsite.tests.probe_log import (
    ROUTE,
    logs,
    partition_of,
    plan_of,
    publish,
    redrive_all,
)
from outbox import conf
from outbox.audit import compare
from outbox.audit.repair import repair
from outbox.audit.replay import replay
from outbox.handlers import pause, task
from outbox.inbox import positions
from outbox.models import BridgePosition, InboxReceipt, OutboxEvent

pytestmark = pytest.mark.usefixtures("pipeline")


@needs_apache_kafka
class TestAHandlerAddedUnderLoad:
    """Another reader of the probe's topic, with events before, meanwhile and after."""

    @pytest.mark.parametrize(("since", "expected"), [("now", 4), ("earliest", 6)])
    def test_starts_where_it_says(self, since: str, expected: int) -> None:
        cut_log(PROBE_TOPIC.name)
        publish("a", times=2)
        probe_services.draw(["a"])  # committed before, in Kafka after
        positions.create_positions("newcomer", logs()[PROBE_TOPIC.name], since=since)
        publish("a", times=3)
        newcomer = replace(ROUTE, handler="newcomer", since=since)
        applied: list[UUID] = []

        def remember(events: object) -> None:
            applied.extend(event.event_id for event in events)  # type: ignore[attr-defined]

        conf_routes = conf.routes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conf, "routes", lambda: (*conf_routes, newcomer))
            waiting = [each for page in compare.pages(newcomer, logs()) for each in page]
            assert len(waiting) == expected
            for chunk in list(chunks_since("newcomer")):
                task.apply_chunks(handler="newcomer", chunks=[chunk], effect=remember)
            assert [each for page in compare.pages(newcomer, logs()) for each in page] == []
        assert len(applied) == len(set(applied)) == expected
        ids = OutboxEvent.objects.order_by("id").values_list("event_id", flat=True)
        assert applied == list(ids)[-expected:]


@needs_apache_kafka
class TestARunningBridge:
    """Follows positions that were moved under its hands, without a restart."""

    @pytest.fixture
    def processes(self) -> Iterator[None]:
        with ExitStack() as started:
            for name in ("worker-effects", "bridge"):
                port = free_port()
                environment = child_environment(METRICS_PORT=str(port))
                url = f"http://127.0.0.1:{port}/health"
                started.enter_context(running(command_of(name), environment, url))
            yield

    def test_reads_the_log_again_after_a_replay(self, processes: None) -> None:
        publish("a", "b", times=20)
        assert settles(lambda: probe_queries.verdict().applied == 40)
        replay(plan_of(PROBE_HANDLER), by="test")
        publish("a", "b", times=5)
        assert settles(lambda: probe_queries.verdict().applied == 50)
        assert probe_queries.verdict().ok

    def test_goes_on_once_a_log_has_grown_past_a_position_beyond_its_end(self) -> None:
        port = free_port()

        def standing() -> float:
            with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                lines = answer.read().decode().splitlines()
            name = f'bridge_positions_out_of_range{{handler="{PROBE_HANDLER}"'
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

        with ExitStack() as started:
            for name in ("worker-effects", "bridge"):
                port = free_port()
                environment = child_environment(METRICS_PORT=str(port))
                url = f"http://127.0.0.1:{port}/health"
                started.enter_context(running(command_of(name), environment, url))
            publish("a")
            assert settles(lambda: probe_queries.verdict().applied == 1)
            BridgePosition.objects.filter(
                handler=PROBE_HANDLER, partition=partition_of("a")
            ).update(next_offset=F("next_offset") + 3)
            assert settles(lambda: standing() == 1)
            publish("a", times=5)
            assert settles(lambda: InboxReceipt.objects.count() == 3)
            assert settles(lambda: standing() == 0)

    def test_goes_on_behind_what_the_log_has_lost(self, processes: None) -> None:
        publish("a")
        assert settles(lambda: probe_queries.verdict().applied == 1)
        pause.pause_handler(PROBE_HANDLER, reason="", by="test")
        publish("a", times=5)
        cut_log(PROBE_TOPIC.name)
        pause.resume_handler(PROBE_HANDLER, by="test")
        publish("a", times=2)
        repair(ROUTE, logs())

        def caught_up() -> bool:
            redrive_all()
            return probe_queries.verdict().lost == 0

        assert settles(caught_up)
        assert probe_queries.verdict().ok
