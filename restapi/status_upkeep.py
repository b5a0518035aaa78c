"""Upkeep of the status logs: what is past its retention is deleted in small pieces, and how long the
oldest change has waited for its number is measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

from django.conf import settings
from django.utils.module_loading import import_string

from outbox.database import jobs
from outbox.database.ask import row_of
from outbox.watching import Hop
from restapi.metrics import PURGED, UNNUMBERED
from restapi.status_log import StatusLog

__all__ = ["hops", "measure_status_logs", "prune_status_logs", "status_logs"]

CHUNK = 1000
RUN_SECONDS = 10.0


def status_logs() -> Sequence[StatusLog]:
    """Those that the installed apps declare."""
    return tuple(map(import_string, settings.WIRING.status_logs))


def prune_status_logs(
    *, hours: float | None = None, seconds: float = RUN_SECONDS, chunk: int = CHUNK
) -> int:
    """Delete what is older than `hours` (STATUS_LOG_HOURS), for at most about `seconds`; returns the
    rows. Of each log the row with the highest number stays: the next number follows from it."""
    kept = settings.STATUS_LOG_HOURS if hours is None else hours
    give_up = time.monotonic() + seconds
    deleted = 0
    complete = True
    for log in status_logs():
        purged = PURGED.labels(log.name)  # shown as 0
        while rows := _prune(log, kept, chunk):
            deleted += rows
            purged.inc(rows)
            if time.monotonic() > give_up:
                complete = False
                break
    if complete:
        jobs.note_done("prune_status_logs")
    return deleted


def measure_status_logs() -> None:
    for log in status_logs():
        UNNUMBERED.labels(log.name).set(_unnumbered_seconds(log))


def hops() -> Sequence[Hop]:
    found = []
    for log in status_logs():
        seconds = _unnumbered_seconds(log)
        figures = {"status_log_unnumbered_seconds": seconds}
        name = f"live feed of {log.name}"
        found.append(
            Hop(name=name, group="live feeds", oldest=seconds, unit="changes", figures=figures)
        )
    return found


def _unnumbered_seconds(log: StatusLog) -> float:
    """How long the oldest committed change has waited for its number."""
    row = row_of(
        f"""
        SELECT coalesce(extract(epoch FROM clock_timestamp() - (
            SELECT {log.at} FROM {log.table} WHERE seq IS NULL ORDER BY id LIMIT 1)), 0)
        """
    )
    return float(row[0])


def _prune(log: StatusLog, hours: float, chunk: int) -> int:
    """One piece, from where the last one ended: not through the index entries of what is gone."""
    name = f"status_log:{log.name}"
    through = f", ({log.through})" if log.through else ""
    mark = jobs.read_mark(name)
    rows, edge = row_of(
        f"""
        WITH batch AS MATERIALIZED (
            SELECT seq, {log.at} < clock_timestamp() - make_interval(secs => %s) AS old
            FROM {log.table} WHERE seq > %s ORDER BY seq LIMIT %s
        ), edge AS (
            SELECT CASE WHEN EXISTS (SELECT FROM {log.table} WHERE seq IS NOT NULL) THEN least(
                coalesce(min(seq) FILTER (WHERE NOT old) - 1, max(seq)),
                (SELECT max(seq) FROM {log.table}) - 1{through}) END AS seq FROM batch
        ), gone AS (
            DELETE FROM {log.table} AS log USING edge
            WHERE log.seq > %s AND log.seq <= edge.seq RETURNING 1
        )
        SELECT (SELECT count(*) FROM gone), (SELECT seq FROM edge)
        """,
        (hours * 3600, mark, chunk, mark),
    )
    if edge is None or edge < mark:
        edge = 0  # the log was emptied, and started again
    if edge != mark:
        jobs.move_mark(name, old=mark, new=edge)
    return int(rows)
