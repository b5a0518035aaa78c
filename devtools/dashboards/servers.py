"""Servers and processes. PostgreSQL is asked itself; Kafka and Redis are seen by what our processes say
of them, for the development stack has no exporter of theirs."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from devtools.dashboards.panels import (
    dashboard,
    lines,
    newest,
    number,
    rate,
    sql_number,
    sql_table,
)

__all__ = ["made"]


def made() -> Dashboard:
    """Which processes run, and how their servers are."""
    return dashboard(
        "servers",
        "Servers",
        "Processes, PostgreSQL, Kafka, Redis, RabbitMQ and Prometheus.",
        [
            number(
                "Targets down",
                "Targets that Prometheus cannot scrape.",
                "count(up) - sum(up)",
                bound=0,
            ),
            number(
                "Processes", "Processes that answer Prometheus.", 'sum(up{job=~"web|background"})'
            ),
            sql_number(
                "PostgreSQL: sessions",
                "Of this database.",
                "SELECT numbackends AS value FROM pg_stat_database"
                " WHERE datname = current_database()",
            ),
            sql_number(
                "PostgreSQL: size",
                "Of this database.",
                "SELECT pg_database_size(current_database()) AS value",
                unit="bytes",
            ),
            lines(
                "Processes by kind",
                "Processes that answer Prometheus.",
                ("{{process}}", "count by (process) (process_up == 1)"),
            ),
            lines(
                "Servers that do not answer",
                "As the processes notice it, per second: connections to PostgreSQL given up; nudges, limits"
                " and the relay's dedupe without Redis; batches that Kafka did not take.",
                ("PostgreSQL: {{waited_for}}", rate("database_given_up_total", "waited_for")),
                ("Redis: nudges", rate("outbox_nudges_failed_total")),
                ("Redis: limits", rate("rate_limit_failed_open_total")),
                ("Redis: dedupe", rate("dedupe_unavailable_total")),
                (
                    "Kafka: drain",
                    rate("outbox_drain_failures_total", where='reason=~"refused|transport"'),
                ),
            ),
            sql_table(
                "PostgreSQL: sessions by program",
                "VACUUM removes no row that is newer than the oldest transaction.",
                "SELECT application_name AS program, state, count(*) AS sessions,"
                " round(extract(epoch FROM max(now() - xact_start))::numeric, 1)"
                " AS oldest_transaction_seconds"
                " FROM pg_stat_activity WHERE datname = current_database()"
                " GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 30",
            ),
            sql_table(
                "PostgreSQL: tables",
                "The largest tables, with the dead rows that wait for VACUUM.",
                "SELECT relname AS table, pg_total_relation_size(relid) AS bytes,"
                " n_live_tup AS rows, n_dead_tup AS dead_rows, last_autovacuum"
                " FROM pg_stat_user_tables ORDER BY 2 DESC LIMIT 20",
            ),
            sql_table(
                "PostgreSQL: what it has done",
                "Since its statistics began.",
                "SELECT xact_commit AS commits, xact_rollback AS rollbacks, deadlocks, conflicts,"
                " temp_bytes, round(100.0 * blks_hit / greatest(blks_hit + blks_read, 1), 2)"
                " AS cache_hit_percent"
                " FROM pg_stat_database WHERE datname = current_database()",
            ),
            lines(
                "RabbitMQ: memory",
                "Memory of the node, and the limit above which it blocks publishers.",
                ("used", "sum(rabbitmq_process_resident_memory_bytes)"),
                ("mark", "sum(rabbitmq_resident_memory_limit_bytes)"),
                unit="bytes",
            ),
            lines(
                "RabbitMQ: connections",
                "",
                ("connections", "sum(rabbitmq_connections)"),
                ("channels", "sum(rabbitmq_channels)"),
            ),
            lines(
                "Prometheus",
                "Series that Prometheus holds, and the longest scrape.",
                ("series", "prometheus_tsdb_head_series"),
                ("seconds of a scrape", "max(scrape_duration_seconds)"),
            ),
            lines(
                "Kafka, as relays and drains see it",
                "1 while Kafka takes messages; age of the oldest event that waits for it.",
                ("relay", "min(relay_kafka_up)"),
                ("oldest event, seconds", newest("outbox_oldest_pending_seconds")),
            ),
        ],
    )
