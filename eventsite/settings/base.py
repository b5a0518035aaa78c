"""Settings that hold everywhere; `local`, `production` and `test` say what differs."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from celery.schedules import schedule
from kombu import Exchange, Queue

from eventsite.settings.env import REPOSITORY, environment

env = environment()

BASE_DIR = REPOSITORY
SECRET_KEY = env.django_secret_key
DEBUG = False
ALLOWED_HOSTS = env.names(env.allowed_hosts)
CSRF_TRUSTED_ORIGINS = env.names(env.csrf_trusted_origins)
ROOT_URLCONF = "eventsite.urls"
ASGI_APPLICATION = "eventsite.asgi.application"
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# Whether Django itself answers /static/: in production the web server does, from STATIC_ROOT.
SERVE_STATIC = False

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_prometheus",
    "rest_framework",
    "drf_standardized_errors",
    "outbox",
    "orders",
    "analytics",
    "eventsite",
]
if env.probe:
    INSTALLED_APPS.append("eventsite.probe")

# The admin's middleware only; ids, access log and metrics are the gateway's, one ASGI layer
# around all of it, and API paths skip sessions because nothing in them asks for a user.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
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


def _database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    options: dict[str, Any] = {
        "connect_timeout": 3,
        # PostgreSQL itself ends a session that holds a transaction and has gone silent, so a
        # stopped drain or worker gives its lanes and positions back without any clock of ours.
        "options": "-c idle_in_transaction_session_timeout=8000 -c lock_timeout=5000",
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
        "OPTIONS": options,
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
}
DRF_STANDARDIZED_ERRORS = {"EXCEPTION_FORMATTER_CLASS": "restapi.errors.ErrorFormatter"}
MAX_BODY_BYTES = 1024 * 1024

# Celery: PostgreSQL and Kafka remember, Redis only carries. A task that is lost is sent again
# by the bridge (chunks) or by beat (everything else), so no result is kept.
REDIS_URL = env.redis_url
CELERY_BROKER_URL = env.redis_url
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "outbox"
CELERY_TASK_QUEUES = [
    Queue(name, Exchange(name), routing_key=name)
    for name in ("outbox", "analytics", "orders", "probe")
]
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_TIME_LIMIT = 15
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_POOL_LIMIT = 4
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # One Redis key a queue instead of four, and no wait on a Redis that does not answer.
    "priority_steps": [0],
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "socket_keepalive": True,
    "health_check_interval": 5,
    "visibility_timeout": 60,
}
CELERY_BEAT_SCHEDULER = "eventsite.celery:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_BEAT_SCHEDULE = {
    "drain_outbox": {
        "task": "outbox.drain_outbox",
        "schedule": schedule(1.0),
        "options": {"queue": "outbox", "expires": 5},
    },
    "measure_backlog": {
        "task": "outbox.measure_backlog",
        "schedule": schedule(2.0),
        "options": {"queue": "outbox", "expires": 5},
    },
    "redrive_letters": {
        "task": "outbox.redrive_letters",
        "schedule": schedule(1.0),
        "options": {"queue": "outbox", "expires": 5},
    },
    "prune_orders_per_minute": {
        "task": "analytics.prune_orders_per_minute",
        "schedule": schedule(3600.0),
        "options": {"queue": "analytics", "expires": 600},
    },
}

# The backbone (outbox/conf.py reads these).
OUTBOX_EVENT_MAP = "eventsite.event_map.ROUTES"
KAFKA_BOOTSTRAP_SERVERS = env.kafka_bootstrap_servers
KAFKA_GROUP_PROTOCOL = env.kafka_group_protocol
KAFKA_REPLICATION_FACTOR = env.kafka_replication_factor
METRICS_HOST = env.metrics_host
METRICS_PORT = env.metrics_port
PROBE_ENABLED = env.probe
WEB_THREADS = env.web_threads
SERVICE_NAME = env.service_name
ADMIN_USERNAME = env.admin_username
ADMIN_PASSWORD = env.admin_password

LOGGING_CONFIG = None  # eventsite.apps configures structlog and the standard library in one go
LOG_LEVEL = env.log_level
