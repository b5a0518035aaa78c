"""What a threshold takes, what it refuses, and when it is crossed."""

from __future__ import annotations

import math

import pytest

from loadtest.thresholds import METRICS, Threshold


@pytest.mark.parametrize(
    ("text", "metric", "sign", "limit"),
    [
        ("p99>250ms", "p99", ">", 250),
        ("p99 > 250", "p99", ">", 250),
        ("p99.9>=1.5s", "p99.9", ">=", 1500),
        ("max>900us", "max", ">", 0.9),
        ("e2e_p99>2s", "e2e_p99", ">", 2000),
        ("lost>0", "lost", ">", 0),
        ("duplicates!=0", "duplicates", "!=", 0),
        ("rate<950", "rate", "<", 950),
        ("rate<950/s", "rate", "<", 950),
        ("errors>=3", "errors", ">=", 3),
    ],
)
def test_taken(text: str, metric: str, sign: str, limit: float) -> None:
    found = Threshold.parse(text)
    assert (found.metric, found.sign) == (metric, sign)
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "p99>250ms"),
        ("p99", "operators: >="),
        ("p99>", "metrics: p50"),
        ("p99=>5", "operators"),
        ("p99>-5ms", "is not a threshold"),
        ("p98>5ms", "'p98' is not a metric; the metrics are p50, p90"),
        ("p99>5m", "it takes ms, us, µs, s"),
        ("lost>1%", "it takes no unit"),
        ("rate<9ms", "it takes /s"),
        ("p99>5ms and more", "is not a threshold"),
    ],
)
def test_refused_with_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"threshold|metric|measured") as error:
        Threshold.parse(text)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "value", "crossed"),
    [
        ("p99>250ms", 250.0, False),
        ("p99>250ms", 250.1, True),
        ("p99>=250ms", 250.0, True),
        ("p99<250ms", 249.0, True),
        ("p99<=250ms", 250.1, False),
        ("p99==250ms", 250.0, True),
        ("p99!=250ms", 250.0, False),
        ("p99>250ms", math.nan, True),
        ("p99<250ms", math.nan, True),
    ],
)
def test_crossed(text: str, value: float, crossed: bool) -> None:
    assert Threshold.parse(text).crossed({"p99": value}) is crossed


def test_a_share_is_of_what_was_due() -> None:
    values = {"errors": 5.0, "errors_percent": 0.5}
    assert not Threshold.parse("errors>1%").crossed(values)
    assert Threshold.parse("errors>1").crossed(values)


def test_every_metric_can_be_asked_for() -> None:
    assert [Threshold.parse(f"{metric}>1").metric for metric in METRICS] == list(METRICS)
