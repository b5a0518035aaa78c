"""A wrong line in the event map stops the start, and says what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from kombu import compression

from outbox import conf
from outbox.checks import check_event_map
from outbox.declaration import Route
from outbox.topics import Topic


class Elsewhere:
    """An event class of another topic."""

    topic: ClassVar[Topic] = Topic("elsewhere")
    type: ClassVar[str] = "ELSEWHERE"


def errors(monkeypatch: pytest.MonkeyPatch, *routes: Route) -> list[str | None]:
    monkeypatch.setattr(conf, "routes", lambda: routes)
    return [error.id for error in check_event_map()]


def test_the_real_map_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors(monkeypatch, *conf.routes()) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"task": "nobody.knows"}, "outbox.E002"),
        ({"queue": "another"}, "outbox.E003"),
        ({"event": ()}, "outbox.E004"),
        ({"event": (Elsewhere,)}, "outbox.E005"),
        ({"since": "yesterday"}, "outbox.E008"),
        ({"retries": ()}, "outbox.E009"),
        ({"handler": "outbox.drain"}, "outbox.E010"),
        ({"retries": (1.0, 0.0)}, "outbox.E009"),
    ],
)
def test_each_mistake_has_its_error(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], error: str
) -> None:
    assert errors(monkeypatch, replace(conf.routes()[0], **change)) == [error]


def test_a_handler_stands_once(monkeypatch: pytest.MonkeyPatch) -> None:
    route = conf.routes()[0]
    assert errors(monkeypatch, route, route) == ["outbox.E001"]


def test_order_is_refused_where_writers_lock_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    route = conf.routes()[0]
    unlocked = replace(route.topic, ordered_keys=False)
    events = tuple(type(event.__name__, (event,), {"topic": unlocked}) for event in route.event)
    broken = replace(route, topic=unlocked, event=events)
    assert errors(monkeypatch, broken) == ["outbox.E007"]
    assert errors(monkeypatch, replace(broken, ordered=False)) == []


def test_a_topic_that_is_heard_here_is_not_only_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    route = conf.routes()[0]
    assert Topic("stock") in conf.topics_for_others()
    monkeypatch.setattr(conf, "topics_for_others", lambda: (route.topic,))
    assert errors(monkeypatch, route) == ["outbox.E013"]


def test_an_unknown_handler_is_named_with_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"'nobody'.*record_sales"):
        conf.route_named("nobody")


def test_chunks_can_be_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "encoders", lambda: ["application/x-gzip"])
    assert errors(monkeypatch, *conf.routes()) == ["outbox.E014"]
