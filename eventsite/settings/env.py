"""The only reader of the environment: every variable, its type and its default.

Our own names win; the names of the programs this project replaces work when ours are unset.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import AliasChoices, Field, Json, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from eventsite.settings.kafka import KafkaSecurity
from eventsite.settings.metrics_directory import make_metrics_directory
from eventsite.settings.names import (
    AmqpAddress,
    DatabaseAddress,
    QueueName,
    RedisAddress,
    RedisHost,
    TopicName,
)

__all__ = ["Environment", "environment"]

REPOSITORY = Path(__file__).resolve().parents[2]


class Environment(KafkaSecurity):
    """Typed view of the process environment (and of an `.env` file at the repository's root)."""

    model_config = SettingsConfigDict(
        env_file=REPOSITORY / ".env", extra="ignore", env_ignore_empty=True
    )

    # Servers
    database_url: DatabaseAddress = "postgresql://postgres:postgres@localhost:5432/orders"
    redis_url: RedisAddress = ""
    redis_addr: RedisHost = "localhost:6379"
    redis_password: str = ""
    kafka_bootstrap_servers: str = Field(
        default="localhost:9092",
        validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
    )
    # `consumer` is KIP-848 and needs Kafka 4 (or 3.7+ with it switched on); `classic` works anywhere.
    kafka_group_protocol: str = "classic"
    kafka_replication_factor: int = 1
    # How it is reached: KafkaSecurity in eventsite/settings/kafka.py

    # The relay (docs/relay.md); its Kafka and its Redis are the ones above unless they are named here
    rabbitmq_url: AmqpAddress = "amqp://guest:guest@localhost:5672/"
    rabbitmq_queue: QueueName = "events"
    # missing: made if it is not there when the relay starts; always: also when it is deleted later
    rabbitmq_create: Literal["missing", "always"] = "missing"
    kafka_topic: TopicName = "processed_events"
    dedupe: bool = True
    dedupe_redis_url: RedisAddress = ""  # unset: REDIS_URL
    dedupe_ttl: float = Field(default=24 * 3600, ge=1)  # seconds that a published id is known
    worker_count: int = Field(default=10, ge=1)  # a hundred messages in hand for each
    max_retries: int = Field(default=5, ge=1)  # refusals by Kafka, each alone
    retry_initial_delay_ms: float = Field(default=100, gt=0)
    retry_max_delay_ms: float = Field(default=5000, gt=0)
    circuit_breaker_threshold: int = Field(default=5, ge=1)  # requests

    # Retention, in hours: the longest topic (7 days) < receipts < outbox, or the start is refused
    receipt_retention_hours: int = 10 * 24
    outbox_retention_hours: int = 14 * 24
    dead_letter_retention_hours: int = 90 * 24  # of those that are resolved

    # Seconds that a bridge waits before an event of ours whose type it does not know; then it is parked
    unknown_type_wait: float = Field(default=600, ge=0)

    # Risks of the servers that production accepts by name; `manage.py check_servers` lists them
    accepted_risks: str = ""  # comma separated

    # Our processes
    port: int = Field(default=8080, validation_alias=AliasChoices("PORT", "APP_PORT"))
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0  # port of /metrics and /health of a non-web process; 0: any free one
    prometheus_multiproc_dir: str = ""
    log_level: str = "INFO"
    log_format: Literal["json", "console"] = "json"  # console: a line for people to read
    no_color: str = ""  # set to anything: no colours on a terminal
    service_name: str = "eventsite"
    build: str = ""  # tag or digest of the image: await_version distinguishes processes by it
    watchdog_seconds: float = 15  # a worker or bridge that has stood still for so long ends itself
    worker_concurrency: int = 0  # processes of a worker; 0: what roles.py says

    # Spans; every other OTEL_… variable is read by the SDK itself
    otel_exporter_otlp_endpoint: str = ""  # base address of an OTLP/HTTP receiver
    otel_exporter_otlp_traces_endpoint: str = ""  # the whole address, where it is another
    jaeger_endpoint: str = ""  # as otel_exporter_otlp_endpoint, where that is unset
    otel_sdk_disabled: str = ""  # "true": no spans all the same

    # Gateway
    api_keys_required: bool = False  # production settings always require one
    debug: str = ""  # off in all settings; production does not start where somebody has it on
    rate_limit: str = ""  # of each caller, "100/s burst 200"; unset: none
    rate_limit_patience: float = Field(default=0.05, gt=0)  # seconds for Redis, then let through
    trusted_proxies: int = Field(
        default=0, ge=0
    )  # proxies in front, each of which appends to X-Forwarded-For

    websockets_per_caller: int = Field(default=100, ge=0)  # open in one process; 0: any number
    websocket_send_seconds: float = Field(default=10, gt=0)  # a message waits, then 1013
    websocket_origins: str = ""  # comma separated, beside ALLOWED_HOSTS
    status_log_hours: int = Field(default=24, ge=1)  # that a live feed can be resumed

    # Notifications: who sends (docs/notifications.md), and how fast
    providers: Json[dict[str, dict[str, Any]]] = Field(default={}, validate_default=False)
    webhook_url: str = ""  # where providers is unset: one for all channels
    smtp_url: str = ""  # where providers is unset: for e-mail, in front of the webhook
    mail_sender: str = "notifications@localhost"  # of the mails that go by smtp_url
    mail_domain: str = "localhost"  # of the Message-ID
    rate_limit_per_channel: int = Field(default=100, ge=1, le=1_000_000)  # messages a second
    notification_senders: int = Field(default=1, ge=1, le=100)  # at a time, of each priority
    # Seconds after its creation or schedule in which a notification must have been sent
    notification_expires_seconds: float = Field(default=24 * 3600, gt=0)
    notification_expires_high_seconds: float = Field(default=3600, gt=0)
    # How long finished ones, with their attempts, and changes of status are kept, in hours
    notification_retention_hours: int = Field(default=30 * 24, ge=48)

    # Feeds
    feed_window: int = Field(default=1000, ge=10)  # newest entries that are stored for each user
    # From so many followers on an author's posts are merged at read; below half of it stored again
    feed_merge_followers: int = Field(default=10_000, ge=2)
    feed_cache_url: RedisAddress = ""  # a Redis of its own for cached feeds; unset: REDIS_URL
    feed_cache_seconds: int = Field(default=300, ge=1)  # how long a feed that nobody reads is kept
    feed_cache_feeds: int = Field(default=100_000, ge=0)  # feeds at most; 0: none, PostgreSQL alone

    # Web
    hot_paths: bool = True  # off: every request goes through Django
    hot_path_sessions: int = Field(default=2, ge=1)  # for reads, and as many for writes
    web_threads: int = 2  # requests in Django at a time, each with its own database connection
    django_secret_key: str = ""
    allowed_hosts: str = ""  # comma separated
    csrf_trusted_origins: str = ""  # comma separated

    # An event a minute through every handler, without a meaning: its age shows where events
    # wait
    canary: bool = True

    # Lets its bearer read the page of operators while PostgreSQL is unavailable; unset: nobody
    # may
    ops_token: str = ""

    # Admin user made by `manage.py ensure_admin`
    admin_username: str = "admin"
    admin_password: str = "admin"  # noqa: S105  (production settings refuse it)

    @model_validator(mode="after")
    def _redis_url_from_seed_names(self) -> Environment:
        if not self.redis_url:
            password = quote(self.redis_password, safe="")
            credentials = f":{password}@" if self.redis_password else ""
            self.redis_url = f"redis://{credentials}{self.redis_addr}/0"
        self.feed_cache_url = self.feed_cache_url or self.redis_url
        return self

    @property
    def traces_endpoint(self) -> str:
        """Where spans are posted to; empty: there are none."""
        if self.otel_sdk_disabled.strip().lower() == "true":
            return ""
        base = (self.otel_exporter_otlp_endpoint or self.jaeger_endpoint).rstrip("/")
        return self.otel_exporter_otlp_traces_endpoint or (base and f"{base}/v1/traces")

    @property
    def notification_providers(self) -> dict[str, dict[str, Any]]:
        """PROVIDERS; else those that SMTP_URL and WEBHOOK_URL make; lines in the log for channels that
        neither serves, which production settings refuse unless PROVIDERS says so."""
        if self.providers:
            return self.providers
        made: dict[str, dict[str, Any]] = {}
        if self.smtp_url:
            made["smtp"] = {"kind": "smtp", "url": self.smtp_url, "sender": self.mail_sender}
        if self.webhook_url:
            made["webhook"] = {"kind": "webhook", "url": self.webhook_url}
        else:
            # Never a mail: the log would be used while the breaker of the mail server is open.
            made["log"] = {"kind": "log"} | ({"channels": ["sms", "push"]} if made else {})
        return made

    def names(self, value: str) -> list[str]:
        """A comma separated variable as a list without empty entries."""
        return [name.strip() for name in value.split(",") if name.strip()]


@cache
def environment() -> Environment:
    """This process's environment, read once.

    Also gives prometheus_client its directory for metrics shared between forked processes: it
    is read at import, so it must exist before the first metric is defined.

    Values that cannot be used end this process with exit code 1; each is named."""
    try:
        env = Environment()
    except ValidationError as error:
        sys.exit(_complaint(error))
    if not env.prometheus_multiproc_dir:
        env.prometheus_multiproc_dir = make_metrics_directory()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = env.prometheus_multiproc_dir
    return env


def _complaint(error: ValidationError) -> str:
    """Names and reasons; no values, which may be secrets."""
    lines = []
    for each in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in each["loc"]).upper()  # none: of several together
        lines.append(f"  {name}: {each['msg']}" if name else f"  {each['msg']}")
    return "\n".join(["Invalid environment variables:", *lines])
