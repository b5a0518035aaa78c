"""Settings for all environments; `local`, `production` and `test` set the differences."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from eventsite import releases
from eventsite.composition import settings_of
from eventsite.settings.env import REPOSITORY, Environment, environment
from eventsite.settings.redis import broker_url

env = environment()

BASE_DIR = REPOSITORY
SECRET_KEY = env.django_secret_key
DEBUG = False
ALLOWED_HOSTS = env.names(env.allowed_hosts)
CSRF_TRUSTED_ORIGINS = env.names(env.csrf_trusted_origins)
ROOT_URLCONF = "eventsite.urls"
APPEND_SLASH = False
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# Whether a view answers /static/: in production WhiteNoise does, from STATIC_ROOT.
SERVE_STATIC = False

INSTALLED_APPS = [
    "eventsite.web.admin.apps.ThrottledAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_prometheus",
    "rest_framework",
    "drf_standardized_errors",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "outbox",
    "restapi",
    "orders",
    "analytics",
    "feeds",
    "notifications",
    "apikeys",
    "loadtest",
    "operations",
    "eventsite",
]

# What the apps declare in their wiring.py: event map, queues, beat, paths, scopes.
#
# No task of beat has an expiry: that is a moment of the sender's clock, and a worker whose clock is
# ahead would drop all of them. Queues are bounded by their length instead (eventsite/celery.py).
_WIRED = settings_of(INSTALLED_APPS)
WIRING = _WIRED["WIRING"]
API_SCOPES = _WIRED["API_SCOPES"]
OUTBOX_LETTER_SOURCES = _WIRED["OUTBOX_LETTER_SOURCES"]
CELERY_TASK_QUEUES = _WIRED["CELERY_TASK_QUEUES"]
CELERY_BEAT_SCHEDULE = _WIRED["CELERY_BEAT_SCHEDULE"]

# The admin's middleware only; ids, access log and metrics are the gateway's, one ASGI layer
# around all of it, and API paths skip sessions because nothing in them asks for a user.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "eventsite.web.content_security.ContentSecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _relay(env: Environment) -> dict[str, Any]:
    """Fields of outbox.rabbitmq.policy.RelayPolicy."""
    return {
        "url": env.rabbitmq_url,
        "queue": env.rabbitmq_queue,
        "create_always": env.rabbitmq_create == "always",
        "topic": env.kafka_topic,
        "dedupe": env.dedupe,
        "dedupe_url": env.dedupe_redis_url or env.redis_url,
        "dedupe_ttl": env.dedupe_ttl,
        "workers": env.worker_count,
        "max_retries": env.max_retries,
        "retry_initial": env.retry_initial_delay_ms / 1000,
        "retry_max": env.retry_max_delay_ms / 1000,
        "breaker_requests": env.circuit_breaker_threshold,
        "canary_every": 60.0 if env.canary else 0.0,
    }


def _database(url: str) -> dict[str, Any]:
    """Parameters of libpq may stand in the address, as in `?sslmode=verify-full`; they win, but for
    `options`, which are ours and then those."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    options: dict[str, Any] = {
        "connect_timeout": 3,
        # PostgreSQL itself ends a session that holds a transaction and has gone silent, so a
        # stopped drain or worker gives its lanes and positions back without any clock of ours.
        # A generic plan made while a table was empty would be kept for as long as the connection:
        # drains that read all of event_outbox, until the next ANALYZE. Planning is cheap here.
        "options": "-c idle_in_transaction_session_timeout=8000 -c lock_timeout=5000"
        f" -c plan_cache_mode=force_custom_plan {given.pop('options', '')}".rstrip(),
        "application_name": env.service_name,
        # Arguments travel apart from the text, and a statement is planned once a connection.
        "server_side_binding": True,
        "prepare_threshold": 2,
        # A peer that vanished without a FIN is noticed after seconds, not hours.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    return {
        "ENGINE": "eventsite.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(parts.port or ""),
        # One lasting connection a thread; every process has few threads that live long.
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options | given,
    }


DATABASES = {"default": _database(env.database_url)}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_RENDERER_CLASSES": ["restapi.json.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "restapi.json.OnlyJSON",
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_PARSER_CLASSES": ["restapi.json.JSONParser"],
    "EXCEPTION_HANDLER": "restapi.errors.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "restapi.openapi.HouseSchema",
}
DRF_STANDARDIZED_ERRORS = {"EXCEPTION_FORMATTER_CLASS": "restapi.errors.ErrorFormatter"}
SPECTACULAR_SETTINGS = {
    "TITLE": "Orders and analytics",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "DESCRIPTION": (
        "Errors have one shape: `{error, details: [{field, message}]}`. Times are UTC with"
        " milliseconds, money is a JSON number. `X-Request-ID`, `X-Correlation-ID` and `traceparent`"
        " of a request are taken if they are well formed, else made, and answered. Every GET answers"
        " HEAD, every path OPTIONS with `Allow`; any other method is a 405, an unknown path a 404."
    ),
    "SERVE_INCLUDE_SCHEMA": False,
    "ENABLE_DJANGO_DEPLOY_CHECK": False,
    "SORT_OPERATION_PARAMETERS": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_NO_READ_ONLY_REQUIRED": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    # Enums stay where they are, few and short, instead of becoming components.
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enum_id_removal",
        "eventsite.web.openapi.with_tags",
    ],
    "SECURITY": [{}, {"bearer": []}, {"apiKey": []}],
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    },
}
MAX_BODY_BYTES = 1024 * 1024

# The gateway (eventsite/web/gateway). The wiring of each app says which path needs which scope.
# Where no key is required, one that is sent is checked all the same.
API_KEYS_REQUIRED = env.api_keys_required
RATE_LIMIT = env.rate_limit
RATE_LIMIT_PATIENCE = env.rate_limit_patience
TRUSTED_PROXIES = env.trusted_proxies
WEBSOCKETS_PER_CALLER = env.websockets_per_caller
WEBSOCKET_SEND_SECONDS = env.websocket_send_seconds
STATUS_LOG_HOURS = env.status_log_hours
WEBSOCKET_ORIGINS = env.names(env.websocket_origins.lower())

# Notifications. Priority -> seconds in which one must have been sent.
NOTIFICATION_EXPIRES_SECONDS = {
    "high": env.notification_expires_high_seconds,
    "normal": env.notification_expires_seconds,
    "low": env.notification_expires_seconds,
}
NOTIFICATION_RETENTION_HOURS = env.notification_retention_hours

# Celery: PostgreSQL and Kafka remember, Redis only carries. A task that is lost is sent again
# by the bridge (chunks) or by beat (everything else), so no result is kept.
REDIS_URL = env.redis_url
CELERY_BROKER_URL = broker_url(env.redis_url)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "msgspec"  # see eventsite/serializer.py
CELERY_ACCEPT_CONTENT = ["msgspec", "json"]
# Its name is the upkeep's: a task that names no queue must not stand in front of the drain.
CELERY_TASK_DEFAULT_QUEUE = "upkeep"
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_TIME_LIMIT = 15
# Celery closes the database connection after each task, and a new one costs more than the task.
CELERY_DB_REUSE_MAX = 2**31
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONCURRENCY = env.worker_concurrency or None  # a worker's own `-c` wins
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_POOL_LIMIT = 4
CELERY_WORKER_CONSUMER = "eventsite.worker.consumer:Consumer"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # One Redis key for each queue instead of four, and no wait on a Redis that does not answer.
    # A sender tries to connect once; workers try again until it succeeds.
    "priority_steps": [0],
    "max_retries": 0,
    "retry_on_timeout": False,
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "socket_keepalive": True,
    "health_check_interval": 5,
    "visibility_timeout": 60,
}
CELERY_BEAT_SCHEDULER = "eventsite.celery:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
# The backbone (outbox/conf.py reads these).
OUTBOX_EVENT_MAP = "eventsite.event_map.ROUTES"
OUTBOX_TOPICS_FOR_OTHERS = "eventsite.event_map.FOR_OTHERS"
OUTBOX_PUBLISHES = "eventsite.event_map.PUBLISHES"
OUTBOX_RELEASE = releases.newest().name
OUTBOX_BUILD = env.build
OUTBOX_UNKNOWN_TYPE_WAIT = env.unknown_type_wait
KAFKA_BOOTSTRAP_SERVERS = env.kafka_bootstrap_servers
# Settings of librdkafka, for every client (outbox/kafka/config.py).
KAFKA_SECURITY = env.kafka_client_settings()
KAFKA_GROUP_PROTOCOL = env.kafka_group_protocol
KAFKA_REPLICATION_FACTOR = env.kafka_replication_factor
WATCHDOG_SECONDS = env.watchdog_seconds
RELAY = _relay(env)
RELAY_PORT = env.metrics_port or env.port
OUTBOX_RECEIPT_RETENTION_HOURS = env.receipt_retention_hours
OUTBOX_RETENTION_HOURS = env.outbox_retention_hours
OUTBOX_DEAD_LETTER_RETENTION_HOURS = env.dead_letter_retention_hours
# Whether `check_servers` refuses what may lose data, but for the risks accepted by name.
OUTBOX_STRICT_SERVERS = False
OUTBOX_ACCEPTED_RISKS = env.names(env.accepted_risks)
# The feeds.
FEED_WINDOW = env.feed_window
FEED_MERGE_FOLLOWERS = env.feed_merge_followers
FEED_CACHE_URL = env.feed_cache_url
FEED_CACHE_SECONDS = env.feed_cache_seconds
FEED_CACHE_FEEDS = env.feed_cache_feeds
# Notifications (docs/notifications.md).
PROVIDERS = env.notification_providers
MAIL_DOMAIN = env.mail_domain
RATE_LIMIT_PER_CHANNEL = env.rate_limit_per_channel
NOTIFICATION_SENDERS = env.notification_senders
METRICS_HOST = env.metrics_host
METRICS_PORT = env.metrics_port
HOT_PATHS = env.hot_paths
HOT_PATH_SESSIONS = env.hot_path_sessions
WEB_THREADS = env.web_threads
SERVICE_NAME = env.service_name
TRACES_ENDPOINT = env.traces_endpoint  # empty: no spans
ADMIN_USERNAME = env.admin_username
ADMIN_PASSWORD = env.admin_password
OPS_TOKEN = env.ops_token
CANARY = env.canary

LOGGING_CONFIG = None  # eventsite.apps configures structlog and the standard library in one go
LOG_LEVEL = env.log_level
LOG_FORMAT = env.log_format
