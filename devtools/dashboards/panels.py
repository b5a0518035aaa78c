"""What dashboards are made of: queries in PromQL and SQL, and the three kinds of panels.

A series is a pair (legend, query). Queries of rates use `$__rate_interval`, which Grafana replaces by
at least four scrapes; `max` over everything stands for gauges that several processes show, set at
different times, as in docker/prometheus/alerts.yml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from django.conf import settings
from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    Threshold,
    ThresholdsMode,
)

__all__ = [
    "bound_of",
    "dashboard",
    "lines",
    "newest",
    "number",
    "quantile",
    "rate",
    "requests",
    "sql_lines",
    "sql_number",
    "sql_table",
    "total",
]

TAG = "event-processor"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
DATABASE = DataSourceRef(type_val="grafana-postgresql-datasource", uid="orders")
WIDTH = 24  # columns of a dashboard
GREEN, RED = "green", "red"

Series = tuple[str, str]
Panel = stat.Panel | table.Panel | timeseries.Panel
AnyPanel = TypeVar("AnyPanel", stat.Panel, table.Panel, timeseries.Panel)


class SqlQuery(Dataquery):
    """A query of Grafana's PostgreSQL data source, of which the SDK has no builder."""

    def __init__(self, sql: str, *, form: str) -> None:
        self.sql, self.form = " ".join(sql.split()), form

    def to_json(self) -> dict[str, object]:
        """As Grafana stores it."""
        return {
            "refId": "A",
            "datasource": DATABASE,
            "editorMode": "code",
            "format": self.form,
            "rawQuery": True,
            "rawSql": self.sql,
        }


class _Sql(Builder[Dataquery]):
    def __init__(self, query: SqlQuery) -> None:
        self._query = query

    def build(self) -> Dataquery:
        return self._query


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def rate(metric: str, *by: str, where: str = "", times: int = 1) -> str:
    """How much a counter rises a second, or in so many seconds."""
    selected = f"{metric}{{{where}}}" if where else metric
    asked = f"sum{_by(by)} (rate({selected}[$__rate_interval]))"
    return asked if times == 1 else f"{asked} * {times}"


def quantile(share: float, histogram: str, *by: str, where: str = "") -> str:
    """That share of what the histogram has observed lies below."""
    buckets = rate(f"{histogram}_bucket", "le", *by, where=where)
    return f"histogram_quantile({share:g}, {buckets})"


def newest(gauge: str, *by: str, where: str = "") -> str:
    """A gauge that several processes show, each as of its own time."""
    return f"max{_by(by)} ({gauge}{{{where}}})" if where else f"max{_by(by)} ({gauge})"


def total(gauge: str, *by: str) -> str:
    """A gauge of which each process shows its part."""
    return f"sum{_by(by)} ({gauge})"


def bound_of(alarm: str) -> float:
    """The threshold of an alarm, as the page of operators and the rules have it."""
    [found] = [each for each in settings.WIRING.alarms if each.name == alarm]
    return float(found.bound)


def dashboard(
    name: str, title: str, note: str, panels: Sequence[Panel], *, of: str = "1h"
) -> Dashboard:
    """The whole of one; `name` is that of its file and of its address. It shows the last hour unless
    `of` says another time."""
    made = (
        Dashboard(title)
        .uid(f"event-processor-{name}")
        .description(note)
        .tags([TAG])
        .readonly()
        .time(f"now-{of}", "now")
        .refresh("15s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for number_of_panel, panel in enumerate(panels, 1):
        made.with_panel(panel.id(number_of_panel))
    return made


def lines(
    title: str, note: str, *series: Series, unit: str = "short", bound: float | None = None
) -> timeseries.Panel:
    """Curves over time, half a row wide. `bound`: where an alarm begins."""
    panel = _asking(timeseries.Panel(), series)
    return _curves(panel, title, note, unit=unit, bound=bound)


def requests(where: str) -> tuple[timeseries.Panel, timeseries.Panel]:
    """How many requests are answered and how fast, of the paths that `where` selects."""
    answered = rate("http_requests_total", "method", "path", "status", where=where)
    slow = quantile(0.99, "http_request_duration_seconds", "method", "path", where=where)
    return (
        lines(
            "Requests",
            "Requests per second, by method, path and status.",
            ("{{method}} {{path}} {{status}}", answered),
            unit="reqps",
        ),
        lines(
            "Answer times, 99 %",
            "Time by method and path.",
            ("{{method}} {{path}}", slow),
            unit="s",
        ),
    )


def number(
    title: str, note: str, query: str, *, unit: str = "short", bound: float | None = None
) -> stat.Panel:
    """One number as it is now, a quarter of a row wide; red above `bound`."""
    panel = _asking(stat.Panel(), [("", query)]).graph_mode(BigValueGraphMode.AREA)
    return _number(panel, title, note, unit=unit, bound=bound)


def sql_lines(title: str, note: str, sql: str, *, unit: str = "short") -> timeseries.Panel:
    """Curves of a statement that gives a column `time` and a column a curve."""
    panel = timeseries.Panel().datasource(DATABASE)
    panel.with_target(_Sql(SqlQuery(sql, form="time_series")))
    return _curves(panel, title, note, unit=unit, bound=None)


def sql_number(title: str, note: str, sql: str, *, unit: str = "short") -> stat.Panel:
    """The one number that a statement gives."""
    panel = stat.Panel().datasource(DATABASE).with_target(_Sql(SqlQuery(sql, form="table")))
    return _number(panel.graph_mode(BigValueGraphMode.NONE), title, note, unit=unit, bound=None)


def sql_table(title: str, note: str, sql: str) -> table.Panel:
    """What a statement gives, half a row wide."""
    panel = table.Panel().datasource(DATABASE).with_target(_Sql(SqlQuery(sql, form="table")))
    return panel.title(title).description(note).span(WIDTH // 2).height(8)


def _asking(panel: AnyPanel, series: Sequence[Series]) -> AnyPanel:
    panel.datasource(PROMETHEUS)
    for place, (legend, query) in enumerate(series):
        asked = prometheus.Dataquery().expr(query).ref_id(chr(ord("A") + place)).range()
        panel.with_target(asked.legend_format(legend or "__auto"))
    return panel


def _curves(
    panel: timeseries.Panel, title: str, note: str, *, unit: str, bound: float | None
) -> timeseries.Panel:
    panel.title(title).description(note).span(WIDTH // 2).height(8).unit(unit).min(0)
    panel.fill_opacity(8).show_points(VisibilityMode.NEVER)
    panel.legend(looks.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM))
    panel.tooltip(
        looks.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    )
    if bound is not None:
        panel.thresholds(_red_above(bound))
        panel.thresholds_style(
            looks.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    return panel


def _number(
    panel: stat.Panel, title: str, note: str, *, unit: str, bound: float | None
) -> stat.Panel:
    panel.title(title).description(note).span(WIDTH // 4).height(4).unit(unit)
    panel.reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]))
    if bound is not None:
        panel.thresholds(_red_above(bound))
    return panel


def _red_above(bound: float) -> ThresholdsConfig:
    """Grafana's thresholds are reached at their value, ours are exceeded."""
    above = bound if bound else 1e-9
    steps = [Threshold(color=GREEN), Threshold(value=above, color=RED)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
