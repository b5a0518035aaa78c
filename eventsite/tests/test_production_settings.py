"""What does not start in production says all that is wrong, in sentences, with exit code 1."""

from __future__ import annotations

import ast
import os
import secrets
import subprocess

import pytest

from devtools.testing import zygote
from eventsite.settings.refusals import refusals

SECRET = secrets.token_urlsafe(50)
PROGRAMS = {
    "manage": ("manage.py", "check"),
    "web": ("manage.py", "run_web", "--application", "eventsite.asgi:application"),
    "worker": ("-m", "celery", "-A", "eventsite", "worker"),
    "beat": ("-m", "celery", "-A", "eventsite", "beat"),
    "asgi": ("-c", "import eventsite.asgi"),
}


def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return zygote.run(*arguments, environment={"PATH": os.environ["PATH"], **variables})


@pytest.mark.parametrize("program", PROGRAMS)
def test_everything_that_is_missing_is_named_at_once(program: str) -> None:
    ended = start(*PROGRAMS[program], DJANGO_SETTINGS_MODULE="eventsite.settings.production")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    for name in (
        "DJANGO_SECRET_KEY is not set",
        "ALLOWED_HOSTS is not set",
        "Neither PROVIDERS nor WEBHOOK_URL is set",
    ):
        assert name in ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("DEBUG", "1", True),
        ("DEBUG", "True", True),
        ("DEBUG", "app:*", True),
        ("DEBUG", "off", False),
        ("DEBUG", "", False),
        ("API_KEYS_REQUIRED", "false", True),
        ("API_KEYS_REQUIRED", "true", False),
    ],
)
def test_who_opens_it_is_told_instead_of_passed_over(name: str, value: str, refused: bool) -> None:
    ended = start(
        *(
            "-c",
            "from django.conf import settings; print(settings.DEBUG, settings.API_KEYS_REQUIRED)",
        ),
        DJANGO_SETTINGS_MODULE="eventsite.settings.production",
        DJANGO_SECRET_KEY=SECRET,
        ALLOWED_HOSTS="shop.example",
        WEBHOOK_URL="https://acme.example/send",
        **{name: value},
    )
    if refused:
        assert ended.returncode == 1
        assert f"{name} is o" in ended.stderr
        assert "Traceback" not in ended.stderr
    else:
        assert ended.stdout.split() == ["False", "True"], ended.stderr


@pytest.mark.parametrize(
    "sends",
    [{"WEBHOOK_URL": "https://acme.example/send"}, {"PROVIDERS": '{"log": {"kind": "log"}}'}],
    ids=["webhook", "log"],
)
def test_what_is_complete_starts(sends: dict[str, str]) -> None:
    ended = start(
        *("-c", "from django.conf import settings; print(*settings.ALLOWED_HOSTS)"),
        DJANGO_SETTINGS_MODULE="eventsite.settings.production",
        DJANGO_SECRET_KEY=SECRET,
        ALLOWED_HOSTS="shop.example, www.shop.example",
        **sends,
    )
    assert (ended.returncode, ended.stdout) == (0, "shop.example www.shop.example\n"), ended.stderr


def test_djangos_own_check_of_a_deployment_is_content() -> None:
    """Also as a warning: sessions, cookies, HSTS, DEBUG."""
    ended = start(
        *("manage.py", "check", "--deploy", "--fail-level", "WARNING"),
        DJANGO_SETTINGS_MODULE="eventsite.settings.production",
        DJANGO_SECRET_KEY=SECRET,
        ALLOWED_HOSTS="shop.example",
        WEBHOOK_URL="https://acme.example/send",
    )
    assert ended.returncode == 0, ended.stderr
    assert "no issues" in ended.stdout


def test_cookies_of_sessions_are_for_https_and_this_site_alone_and_end_with_the_day() -> None:
    wanted = {
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "CSRF_COOKIE_SECURE": True,
    }
    ended = start(
        "-c",
        "from django.conf import settings;"
        f"print({{name: getattr(settings, name) for name in {sorted(wanted)}}});"
        "assert settings.SESSION_COOKIE_AGE <= 24 * 3600",
        DJANGO_SETTINGS_MODULE="eventsite.settings.production",
        DJANGO_SECRET_KEY=SECRET,
        ALLOWED_HOSTS="shop.example",
        WEBHOOK_URL="https://acme.example/send",
    )
    assert (ended.returncode, ast.literal_eval(ended.stdout)) == (0, wanted), ended.stderr


def test_values_that_cannot_be_are_named_at_once_and_not_shown() -> None:
    ended = start("manage.py", "check", PORT="s3cret-port", TRUSTED_PROXIES="-1", LOG_FORMAT="xml")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "s3cret" not in ended.stderr
    for name in ("PORT: ", "TRUSTED_PROXIES: ", "LOG_FORMAT: "):
        assert name in ended.stderr


def refused(
    secret: str = SECRET,
    hosts: str = "shop.example",
    origins: str = "https://shop.example",
    pages: str = "https://shop.example",
    *,
    sends: bool = True,
    ops_token: str = "",
) -> list[str]:
    return refusals(
        secret_key=secret,
        allowed_hosts=hosts.split(),
        csrf_trusted_origins=origins.split(),
        websocket_origins=pages.split(),
        sends=sends,
        ops_token=ops_token,
    )


def test_a_token_of_operators_that_can_be_guessed_is_refused() -> None:
    assert refused(ops_token=SECRET) == []
    [told] = refused(ops_token="letmein")
    assert told.startswith("OPS_TOKEN can be guessed")
    assert "letmein" not in told


@pytest.mark.parametrize(
    "hosts", ["*", "shop.example *", "*.shop.example", ".shop.example", "shop.*", "*:443"]
)
def test_any_wildcard_host_is_refused(hosts: str) -> None:
    [sentence] = refused(hosts=hosts)
    assert sentence.startswith("ALLOWED_HOSTS has wildcards")
    assert "shop.example," not in sentence


@pytest.mark.parametrize("hosts", ["shop.example", "127.0.0.1", "[::1]", "a.b.c localhost"])
def test_hosts_by_name_are_accepted(hosts: str) -> None:
    assert refused(hosts=hosts) == []


def test_a_wildcard_origin_is_refused() -> None:
    [sentence] = refused(origins="https://*.shop.example")
    assert sentence.startswith("CSRF_TRUSTED_ORIGINS has wildcards")
    [sentence] = refused(pages="https://*.shop.example")
    assert sentence.startswith("WEBSOCKET_ORIGINS has wildcards")


def test_notifications_that_nobody_sends_are_refused() -> None:
    """They would be called delivered, and be lines in the log."""
    [sentence] = refused(sends=False)
    assert sentence.startswith("Neither PROVIDERS nor WEBHOOK_URL is set")


@pytest.mark.parametrize(
    "secret",
    [
        "a" * 60,
        "ab" * 30,
        "changeme" * 6,
        "correct-horse-battery" * 2 + "corr",
        "0123456789abcdef0123456789abcdef",
        "abcdefghijklmnopqrstuvwxyz0123456789",
        pytest.param("django-insecure-" + SECRET, id="Django's own word for it"),
        "local-stack-only-not-a-secret-at-all",
        pytest.param(SECRET[:31], id="too short"),
    ],
)
def test_a_secret_that_can_be_guessed_is_refused(secret: str) -> None:
    [sentence] = refused(secret=secret)
    assert sentence.startswith("DJANGO_SECRET_KEY can be guessed")
    assert secret not in sentence


@pytest.mark.parametrize(
    "make", [secrets.token_hex, secrets.token_urlsafe], ids=["hexadecimal", "base64"]
)
def test_random_secrets_are_accepted(make: object) -> None:
    assert callable(make)
    for _ in range(200):
        assert refused(secret=make(32)) == []
