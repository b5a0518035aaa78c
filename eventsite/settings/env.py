"""The only reader of the environment: every variable, its type and its default on one screen.

Our own names win; the names of the programs this project replaces work when ours are unset.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import quote

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Environment", "environment"]

REPOSITORY = Path(__file__).resolve().parents[2]


class Environment(BaseSettings):
    """Typed view of the process environment (and of an `.env` file at the repository's root)."""

    model_config = SettingsConfigDict(
        env_file=REPOSITORY / ".env", extra="ignore", env_ignore_empty=True
    )

    # Servers
    database_url: str = "postgresql://postgres:postgres@localhost:5432/orders"
    redis_url: str = ""
    redis_addr: str = "localhost:6379"
    redis_password: str = ""
    kafka_bootstrap_servers: str = Field(
        default="localhost:9092",
        validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
    )
    # `consumer` is KIP-848 and needs Kafka 4 (or 3.7+ with it switched on); `classic` works anywhere.
    kafka_group_protocol: str = "classic"
    kafka_replication_factor: int = 1
    rabbitmq_url: str = "amqp://guest:guest@localhost:5672/"

    # Retention, in hours: the longest topic (7 days) < receipts < outbox, or the start is refused
    receipt_retention_hours: int = 10 * 24
    outbox_retention_hours: int = 14 * 24
    dead_letter_retention_hours: int = 90 * 24  # of those that are resolved

    # Risks of the servers that production accepts by name; `manage.py check_servers` lists them
    accepted_risks: str = ""  # comma separated

    # Our processes
    port: int = Field(default=8080, validation_alias=AliasChoices("PORT", "APP_PORT"))
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0  # port of /metrics and /health of a non-web process; 0: any free one
    prometheus_multiproc_dir: str = ""
    log_level: str = "INFO"
    service_name: str = "eventsite"
    watchdog_seconds: float = 15  # a worker or bridge that has stood still for so long ends itself
    worker_concurrency: int = 0  # of a worker started without -c; 0: one process a core
    probe: bool = False  # the order probe of demo, chaos and benchmarks

    # Spans; every other OTEL_… variable is read by the SDK itself
    otel_exporter_otlp_endpoint: str = ""  # base address of an OTLP/HTTP receiver
    otel_exporter_otlp_traces_endpoint: str = ""  # the whole address, where it is another
    jaeger_endpoint: str = ""  # as otel_exporter_otlp_endpoint, where that is unset
    otel_sdk_disabled: str = ""  # "true": no spans all the same

    # Gateway
    api_keys_required: bool = False  # production settings always require one
    rate_limit: str = ""  # of each caller, "100/s burst 200"; unset: none
    rate_limit_patience: float = Field(default=0.05, gt=0)  # seconds for Redis, then let through
    trusted_proxies: int = Field(
        default=0, ge=0
    )  # proxies in front, each of which appends to X-Forwarded-For

    # Notifications
    webhook_url: str = ""
    rate_limit_per_channel: int = 100  # messages a second

    # Web
    hot_paths: bool = True  # off: every request goes through Django
    web_threads: int = 2  # requests in Django at a time, each with its own database connection
    django_secret_key: str = ""
    allowed_hosts: str = ""  # comma separated
    csrf_trusted_origins: str = ""  # comma separated

    # Admin user made by `manage.py ensure_admin`
    admin_username: str = "admin"
    admin_password: str = "admin"  # noqa: S105  (production settings refuse it)

    @model_validator(mode="after")
    def _redis_url_from_seed_names(self) -> Environment:
        if not self.redis_url:
            password = quote(self.redis_password, safe="")
            credentials = f":{password}@" if self.redis_password else ""
            self.redis_url = f"redis://{credentials}{self.redis_addr}/0"
        return self

    @property
    def traces_endpoint(self) -> str:
        """Where spans are posted to; empty: there are none."""
        if self.otel_sdk_disabled.strip().lower() == "true":
            return ""
        base = (self.otel_exporter_otlp_endpoint or self.jaeger_endpoint).rstrip("/")
        return self.otel_exporter_otlp_traces_endpoint or (base and f"{base}/v1/traces")

    def names(self, value: str) -> list[str]:
        """A comma separated variable as a list without empty entries."""
        return [name.strip() for name in value.split(",") if name.strip()]


@cache
def environment() -> Environment:
    """This process's environment, read once.

    Also gives prometheus_client its directory for metrics shared between forked processes: it
    is read at import, so it must exist before the first metric is defined.
    """
    env = Environment()
    if not env.prometheus_multiproc_dir:
        env.prometheus_multiproc_dir = tempfile.mkdtemp(prefix="eventsite-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = env.prometheus_multiproc_dir
    return env
