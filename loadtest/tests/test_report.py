"""The page, the JSON and the lines of a run, also of one that came to nothing."""

from __future__ import annotations

import json
import math
import re
import time
from uuid import UUID
from xml.etree import ElementTree

import pytest

from loadtest.charts import exactly, linear, logarithmic
from loadtest.generator import GeneratorPlan
from loadtest.histogram import Histogram
from loadtest.page import render
from loadtest.summary import LoadSummary, progress_of_orders
from loadtest.tally import LoadTally
from loadtest.thresholds import Threshold
from loadtest.verify import LoadVerdict
from loadtest.words import progress

MALICE = "http://x/<script>alert(1)</script>"


def summary(
    tally: LoadTally, verdict: LoadVerdict | None = None, *thresholds: str, **plan: object
) -> LoadSummary:
    return LoadSummary(
        plan=GeneratorPlan(**{"url": MALICE, "seconds": 3.0, "rate": 10.0} | plan),  # type: ignore[arg-type]
        tally=tally,
        verdict=verdict,
        machine={"cores": 2},
        thresholds=[Threshold.parse(text) for text in thresholds],
    )


def busy() -> LoadTally:
    tally = LoadTally(planned_seconds=3.0)
    for number in range(40):
        due = tally.begin + number / 10
        tally.note_sent(due, due + 0.02)
        if number % 4:
            tally.note_accepted(due, due + 0.02, UUID(int=number))
        else:
            tally.note_error(due, "status 503")
    tally.note_not_sent(tally.begin + 2)
    return tally


@pytest.mark.parametrize("closed", [0, 4])
def test_a_run_of_nothing_has_a_page_a_json_and_lines(closed: int) -> None:
    found = summary(LoadTally(planned_seconds=3.0), None, "p99>1s", "errors>0", closed=closed)
    assert [each.text for each in found.crossed()] == ["p99>1s"]  # it is not known
    assert "<svg" in render(found)
    json.dumps(found.as_dict(), allow_nan=False)
    assert "0 of 0 orders accepted" in found.in_words()


def test_the_page_holds_what_the_run_did() -> None:
    effect = Histogram()
    effect.record(80_000)
    verdict = LoadVerdict(
        how="database", missing=2, without_effect=0, effect=effect, figures=0, stored_twice=1
    )
    found = summary(busy(), verdict, "lost>0", "duplicates>3")
    page = render(found)
    drawings = re.findall(r"<figure>(?s:.*?)</figure>", page)
    assert len(drawings) == 4
    for drawing in drawings:
        assert "nan" not in ElementTree.tostring(ElementTree.fromstring(drawing)).decode()
    assert "error: status 503" in page
    assert '<td>lost&gt;0</td><td>2</td><td class="crossed">crossed</td>' in page
    assert "Not sent: 1 request, because" in page
    assert "The generator itself was late: p99 20.0 ms" in page
    assert "<script>alert" not in page


def test_the_json_says_the_same() -> None:
    told = json.loads(json.dumps(summary(busy()).as_dict(), allow_nan=False))
    assert (told["due"], told["sent"], told["values"]["accepted"]) == (41, 40, 30)
    assert told["errors_by_kind"] == {"status 503": 10}
    assert told["values"]["not_sent_percent"] == pytest.approx(100 / 41, abs=0.001)
    assert told["values"]["lost"] is None
    assert told["verdict"] is None
    slots = told["timeline"]["slots"]
    assert [slot["due"] for slot in slots] == [10, 10, 11, 10]
    assert [slot["errors"] for slot in slots] == [3, 2, 3, 2]


def test_orders_that_could_not_be_asked_for_make_the_loss_unknown() -> None:
    found = summary(busy(), LoadVerdict(how="http", unchecked=3), "missing>0")
    assert [each.text for each in found.crossed()] == ["missing>0"]
    assert "The server did not answer about 3 orders" in found.in_words()
    assert "not stored 0 of 27 orders asked for" in found.in_words()


def test_what_http_does_not_show_is_said_to_be_unchecked_and_never_counted() -> None:
    found = summary(busy(), LoadVerdict(how="http", missing=1, answered_twice=2))
    values = found.values()
    for name in ("lost", "without_effect", "duplicates", "figures"):
        assert math.isnan(values[name])
    assert (values["missing"], values["answered_twice"]) == (1, 2)
    text, page, told = found.in_words(), render(found), found.as_dict()["verdict"]
    assert "effects and orders stored twice: not checked" in text
    assert "without effect" not in text
    assert "<b>1</b><span>orders not stored</span>" in page
    assert "orders lost" not in page
    assert (told["lost"], told["without_effect"], told["duplicates"]) == (None, None, None)
    assert told["missing"] == 1


def test_the_lines_tell_what_matters() -> None:
    verdict = LoadVerdict(how="database", missing=1, without_effect=0, stored_twice=0, figures=0)
    text = summary(busy(), verdict).in_words()
    assert "30 of 41 orders accepted" in text
    assert "not sent 1; errors 10; status 503 10" in text
    assert "lost 1 (1 not stored, 0 without effect)" in text


@pytest.mark.parametrize(("terminal", "lines"), [(True, 30), (False, 3)])
def test_progress_is_a_line_a_second_on_a_terminal_and_sparse_elsewhere(
    terminal: bool, lines: int
) -> None:
    said: list[str] = []
    show = progress(said.append, progress_of_orders, terminal=terminal)
    tally = busy()
    for _ in range(30):
        show(tally)
    assert len(said) == lines
    assert "errors 10" in said[-1]
    assert "not sent 1" in said[-1]


def test_an_early_end_counts_the_time_it_took() -> None:
    tally = LoadTally(planned_seconds=3600.0)
    time.sleep(0.01)
    tally.end_early()
    assert 0 < tally.seconds < 3600
    assert any("Ended early" in each for each in summary(tally).warnings())


@pytest.mark.parametrize("highest", [0.0, 0.3, 1, 7, 10, 999, 12345])
def test_axes_reach_beyond_what_they_show(highest: float) -> None:
    axis = linear(highest)
    assert axis.ticks[0][0] == 0
    assert axis.ticks[-1][0] >= highest
    assert axis.place(axis.ticks[-1][0]) == pytest.approx(1)
    assert 2 <= len(axis.ticks) <= 6
    log = logarithmic(max(highest / 3, 0.01), max(highest, 0.01), str)
    assert 0 <= log.place(max(highest, 0.01)) <= 1
    assert len(log.ticks) >= 3


def test_an_exact_axis_ends_where_it_is_told() -> None:
    axis = exactly(121.0, " s")
    assert [text for _, text in axis.ticks] == ["0", "20", "40", "60", "80", "100", "120 s"]
    assert axis.place(121.0) == 1
