"""Runs over dead letters: as fast as was said, not past what was seen, and on where a worker died."""

from __future__ import annotations

from uuid import UUID

import pytest

from notifications.models import Notification
from notifications.tests.samples import EMAIL, SMS, failed
from operations import letters as groups
from operations import runs
from operations.action import ActionRequest
from operations.letters import GroupKey, group_like, groups_of_apps, letter_groups
from outbox import operator_log
from outbox.dead_letters.resolve import resolve_letters
from outbox.models import DeadLetter, OperatorAction
from outbox.operator_log import DoneAlready
from outbox.tests.letters import HANDLER, create_positions, event

pytestmark = pytest.mark.django_db
State = DeadLetter.State


def dead(number: int, *, error: str = "boom", handler: str = HANDLER) -> list[int]:
    return [
        DeadLetter.objects.create(
            handler=handler,
            event_id=event("{}").event_id,
            topic="order-events",
            partition=0,
            key=f"{error} {index}",
            state=State.DEAD,
            attempts=4,
            error=error,
        ).id
        for index in range(number)
    ]


def like(letter_id: int | UUID) -> GroupKey:
    found = group_like(str(letter_id))
    assert found is not None
    return found


def begin(action: str, letter_id: int | UUID, *, rate: int = 200) -> int:
    return runs.begin_run(action, like(letter_id), ActionRequest(by="ada", why="mended", rate=rate))


def a_second_passes() -> None:
    """For the open runs."""
    for row in OperatorAction.objects.filter(ended_at=None):
        assert row.run is not None
        row.run["until"] -= 1.0
        row.save()


def numbers(number: int) -> tuple[int | None, int, int]:
    found = entry(number)
    return found.asked, found.done, found.skipped


def entry(number: int) -> OperatorAction:
    found = operator_log.entry(number)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def positions() -> None:
    create_positions()


def test_it_takes_a_group_and_no_other_letters() -> None:
    mine = dead(5)
    others = [*dead(3, error="bang"), *dead(2, handler="count_follows"), *dead(2)]
    number = begin("discard", mine[-1])
    assert runs.work() == 5
    assert set(DeadLetter.objects.filter(state=State.DEAD).values_list("id", flat=True)) == set(
        others
    )
    assert numbers(number) == (5, 5, 0)
    assert entry(number).ended_at is not None
    assert runs.work() == 0


def test_groups_are_what_runs_take() -> None:
    dead(5)
    dead(3, error="bang")
    found = {(group.error, group.letters): group for group in letter_groups(100)}
    assert set(found) == {("boom", 5), ("bang", 3)}
    begin("discard", int(found["bang", 3].like))
    assert runs.work() == 3


def test_it_is_as_slow_as_was_said() -> None:
    [*_, last] = dead(25)
    begin("discard", last, rate=10)
    taken = []
    for _ in range(4):
        taken.append(runs.work())
        a_second_passes()
    # Each second ten, and what the test itself took; never more than two seconds' worth at once.
    assert taken[0] == 10
    assert sum(taken) == 25
    assert max(taken) <= 20


def test_what_fails_again_is_not_taken_again_by_the_same_run() -> None:
    ids = dead(3)
    number = begin("replay", ids[-1], rate=1)
    assert runs.work() == 1
    assert DeadLetter.objects.get(id=ids[0]).state == State.RETRYING
    DeadLetter.objects.update(state=State.DEAD)  # it failed four times more
    for _ in range(3):
        a_second_passes()
        runs.work()
    assert numbers(number) == (3, 3, 0)
    assert DeadLetter.objects.get(id=ids[0]).state == State.DEAD


def test_a_worker_that_dies_in_between_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = dead(6)
    number = begin("discard", ids[-1])
    resolve = resolve_letters

    class Killed(BaseException):
        """As SIGKILL: nothing is caught."""

    def dies(*args: object, **more: object) -> object:
        outcomes = resolve(*args, **more)  # type: ignore[arg-type]
        yield next(outcomes)
        raise Killed

    monkeypatch.setattr(runs, "resolve_letters", dies)
    with pytest.raises(Killed):
        runs.work()
    monkeypatch.setattr(runs, "resolve_letters", resolve)
    assert entry(number).ended_at is None
    a_second_passes()
    runs.work()
    assert not DeadLetter.objects.filter(state=State.DEAD).exists()
    assert numbers(number) == (6, 6, 0)


def test_a_group_is_found_among_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look passes by a bounded number of them; it goes on behind these."""
    monkeypatch.setattr(runs, "LOOKED_AT", 10)
    dead(35, error="bang")
    [*_, last] = dead(4)
    number = begin("discard", last)
    for _ in range(5):
        runs.work()
        a_second_passes()
    assert numbers(number) == (4, 4, 0)
    assert entry(number).ended_at is not None
    assert DeadLetter.objects.filter(state=State.DEAD).count() == 35


def test_more_than_are_counted_are_taken_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "COUNTED", 5)
    [*_, last] = dead(12)
    number = begin("discard", last)
    assert entry(number).asked is None
    assert runs.work() == 12


def test_a_form_begins_one_run() -> None:
    [*_, last] = dead(3)
    asked = ActionRequest(by="ada", why="x")
    runs.begin_run("replay", like(last), asked)
    with pytest.raises(DoneAlready):
        runs.begin_run("replay", like(last), asked)
    assert OperatorAction.objects.count() == 1


def test_what_apps_keep_is_a_group_too() -> None:
    sms, email = failed(SMS, EMAIL)
    [group] = groups_of_apps()
    assert (group.handler, group.letters, group.like) == ("notifications", 2, max(sms, email))
    number = begin("replay", UUID(group.like), rate=1)
    later = failed(SMS)
    for _ in range(4):
        runs.work()
        a_second_passes()
    assert numbers(number) == (2, 2, 0)
    assert entry(number).ended_at is not None
    left = Notification.objects.filter(status="failed").values_list("id", flat=True)
    assert [str(each) for each in left] == list(later)


def test_a_stopped_run_ends_once() -> None:
    [*_, last] = dead(3)
    number = begin("replay", last, rate=1)
    assert runs.stop_run(number, ActionRequest(by="bob", why="enough"))
    assert not runs.stop_run(number, ActionRequest(by="bob", why="enough"))
    assert runs.work() == 0
    assert entry(number).outcome == "stopped by bob: enough"
