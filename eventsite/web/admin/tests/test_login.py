"""The login of the admin: so many tries of an address, so many of a user, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from devtools.testing.processes import free_port
from eventsite.web.admin.login_limit import OF_ADDRESS, OF_USER, LoginLimit
from outbox import redis_client

pytestmark = pytest.mark.django_db

PASSWORD = "the-right-one-4711"
MANY = 200  # tries: tokens come back while they are made, but never so many


@pytest.fixture(autouse=True)
def _full_buckets() -> Iterator[None]:
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        yield
        for key in server.scan_iter("rate_limit:login:*"):
            server.delete(key)


@pytest.fixture(autouse=True)
def operator() -> User:
    return User.objects.create_superuser("operator", password=PASSWORD)


def log_in(password: str, *, user: str = "operator", address: str = "192.0.2.1") -> Any:
    given = {"username": user, "password": password}
    return Client(REMOTE_ADDR=address).post("/admin/login/?next=/admin/", given)


def guess_until_refused(**of: str) -> int:
    """Wrong passwords until one is not looked at; how many were. `of`: `{}` counts the tries."""
    for number in range(MANY):
        answer = log_in(f"guess-{number}", **{k: v.format(number) for k, v in of.items()})
        if answer.status_code == 429:
            assert int(answer["Retry-After"]) >= 1
            assert "Too many logins were tried." in answer.content.decode()
            return number
        assert answer.status_code == 200
    raise AssertionError(f"{MANY} passwords of {of} were tried.")


def test_a_user_is_not_guessed_from_many_addresses() -> None:
    assert guess_until_refused(address="192.0.2.{}") >= OF_USER.burst
    assert log_in(PASSWORD, address="192.0.2.201").status_code == 429  # also the right one
    assert log_in(PASSWORD, address="192.0.2.202", user="OPERATOR").status_code == 429
    assert log_in("x", address="192.0.2.203", user="somebody-else").status_code == 200


def test_an_address_does_not_try_one_user_after_another() -> None:
    assert guess_until_refused(user="user-{}") >= OF_ADDRESS.burst
    assert log_in(PASSWORD).status_code == 429
    assert log_in(PASSWORD, address="192.0.2.2").status_code == 302


def test_a_network_of_ipv6_is_one_address() -> None:
    guess_until_refused(user="user-{}", address="2001:db8::{}")
    assert log_in(PASSWORD, address="2001:db8::ffff").status_code == 429
    assert log_in(PASSWORD, address="2001:db8:1::1").status_code == 302


def test_who_logs_in_begins_anew() -> None:
    for number in range(OF_USER.burst - 1):
        assert log_in("wrong", address=f"192.0.2.{number}").status_code == 200
    assert log_in(PASSWORD, address="192.0.2.100").status_code == 302
    for number in range(OF_USER.burst):
        assert log_in("wrong", address=f"198.51.100.{number}").status_code == 200


def test_who_is_logged_in_tries_the_passwords_of_others_no_more_often() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("insider"))
    wrong = {"username": "operator", "password": "wrong"}
    for number in range(MANY):
        answer = client.post("/admin/login/", wrong, REMOTE_ADDR=f"192.0.2.{number}")
        if answer.status_code == 429:
            return
    raise AssertionError("An insider may guess for ever.")


def test_the_form_is_always_shown() -> None:
    guess_until_refused(user="user-{}")
    assert Client(REMOTE_ADDR="192.0.2.1").get("/admin/login/").status_code == 200


def test_without_redis_each_process_counts_by_itself() -> None:
    limit = LoginLimit(
        redis_client.client(
            answers_within=1, connects_within=1, url=f"redis://127.0.0.1:{free_port()}"
        )
    )
    taken = 0
    while not limit.take("192.0.2.1", "operator"):
        taken += 1
        assert taken < MANY
    assert taken >= OF_USER.burst
    assert limit.take("192.0.2.1", "operator") >= 1
    assert limit.take("192.0.2.2", "another") == 0
    limit.forget_user("operator")
    assert limit.take("192.0.2.2", "operator") == 0


def test_redis_holds_no_name_of_a_user() -> None:
    """People type their password there."""
    log_in("x", user="my-password-by-mistake")
    with redis.Redis.from_url(settings.REDIS_URL) as server:
        names = [key.decode() for key in server.scan_iter("rate_limit:login:user:*")]
    assert names
    assert not any("my-password" in name for name in names)
