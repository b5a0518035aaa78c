"""Each alarm leads to its section of the runbook, and the section says what to do."""

from __future__ import annotations

import re
from html import unescape

import pytest
from django.conf import settings

from operations.judge import Judge
from operations.pages import as_json, live_part
from operations.snapshot import Snapshot
from operations.terminal import rendered
from operations.tests.test_judge import Clock, over
from operations.tests.well import postgres, snapshot
from outbox.watching import Alarm, Hop

SECTIONS: dict[str, str] = dict(
    re.findall(
        r"^### (\w+)\n(.*?)(?=^#|\Z)",
        (settings.BASE_DIR / "docs" / "operations.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)
# A command of ours, or a clause that begins with what an operator does.
TO_DO = re.compile(
    r"`(?:manage\.py |handlers |lanes |audit |dead_letters )[^`]+`"
    r"|(?:^|[.:;,]\s|\b(?:then|and|or|so)\s)(?:look|start|add|raise|resume|resolve|check|see|put|run|end|empty|bring"
    r"|find out)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("alarm", settings.WIRING.alarms, ids=lambda alarm: alarm.name)
def test_the_sentence_of_an_alarm_leads_to_what_is_to_be_done(
    alarm: Alarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TO_DO.search(SECTIONS[alarm.name]), SECTIONS[alarm.name]

    clock, judge = Clock(monkeypatch), Judge([alarm])

    def judged(value: float) -> Snapshot:
        hop = Hop(name="here", group="there", figures={alarm.figure: value})
        return snapshot(judge, from_postgres=postgres(hops=[hop]))

    judged(0.0)  # of some alarms it counts by how much their figure rises
    clock.now += 2
    shown = judged(over(alarm))
    [alert] = shown.alerts
    place = f"docs/operations.md#{alarm.name.lower()}"
    page = unescape(live_part(shown, frozenset()))
    [card] = [each for each in page.split('<p class="name">')[1:] if each.startswith("here")]
    assert f'<p class="alarm">{alert.sentence} <small>{alert.when} · {place}</small>' in card
    assert place in rendered(shown, colour=False)
    assert [each["runbook"] for each in as_json(shown, letters=True)["alarms"]] == [place]
