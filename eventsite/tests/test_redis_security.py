"""Redis that demands TLS and an ACL user: clients, Celery and feeds' cache get in with one address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import kombu
import pytest
import redis
from django.test import override_settings

from devtools.testing.certificates import Authority
from devtools.testing.installed import needs_openssl, needs_tls_redis, tls_redis
from devtools.testing.pipeline import settles
from devtools.testing.processes import free_port, running, spec_of
from eventsite.settings.redis import broker_url
from outbox import redis_client
from outbox.upkeep.redis_checks import MAY, check_redis

pytestmark = [needs_openssl, needs_tls_redis]

USERS = f"""\
user default off
user admin on >admin ~* &* +@all
user orders on >s3cret/1 {MAY}
user weak on >weak ~* &* +ping
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Of the server, with everything that its user needs."""
    authority = Authority(folder, "authority")
    issued = authority.issue("redis")
    Authority(folder, "stranger")
    port = free_port()
    program = tls_redis()
    assert program is not None
    # By the name that the program is called it knows that it is to be the server.
    (folder / "redis-server").symlink_to(program)
    (folder / "users.acl").write_text(USERS)
    command = [
        *(str(folder / "redis-server"), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--save", ""),
        *("--tls-cert-file", str(issued.certificate), "--tls-key-file", str(issued.key)),
        *("--tls-ca-cert-file", str(authority.certificate)),
        *("--aclfile", str(folder / "users.acl"), "--maxmemory-policy", "noeviction"),
    ]
    authorities = f"ssl_ca_certs={authority.certificate}"
    url = f"rediss://orders:s3cret%2F1@127.0.0.1:{port}/0?{authorities}"
    with running(command, {"PATH": "/usr/bin:/bin"}):
        assert settles(lambda: _answers(url), within=60)
        yield url


def _answers(url: str) -> bool:
    with suppress(redis.ConnectionError), redis.Redis.from_url(url) as server:
        return bool(server.ping())
    return False


def test_our_clients_get_in(address: str) -> None:
    with redis_client.client(answers_within=10, connects_within=10, url=address) as server:
        redis_client.check(server)
        assert redis_client.queue_lengths(server, ["nothing"]) == [0]
        assert server.acl_whoami() == "orders"


def test_celery_gets_in_and_checks_the_certificate(address: str) -> None:
    with kombu.Connection(broker_url(address), connect_timeout=10) as connection:
        queue = connection.SimpleQueue("secured")
        queue.put({"a": 1})
        assert queue.get(timeout=30).payload == {"a": 1}
        queue.close()
    wrong = address.replace("authority.pem", "stranger.pem")
    with (
        kombu.Connection(broker_url(wrong), connect_timeout=10) as connection,
        pytest.raises(kombu.exceptions.OperationalError, match="certificate verify failed"),
    ):
        connection.ensure_connection(max_retries=1, interval_start=0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required"),
        ("rediss://h:1/0?ssl_cert_reqs=none", "rediss://h:1/0?ssl_cert_reqs=none"),
    ],
)
def test_the_address_that_celery_gets(url: str, expected: str) -> None:
    assert broker_url(url) == expected


@pytest.mark.django_db(transaction=True)
def test_a_worker_gets_in_by_the_address_alone(address: str, topics: None) -> None:
    def waits_for_messages() -> bool:
        with redis.Redis.from_url(address.replace("orders:s3cret%2F1", "admin:admin")) as server:
            clients = server.client_list()
        return any(each["user"] == "orders" and each["cmd"] == "brpop" for each in clients)

    worker = spec_of("worker-outbox", REDIS_URL=address)
    with running(worker.command, worker.environment, worker.ready_url, ready_within=120):
        assert settles(waits_for_messages, within=60)


@pytest.mark.parametrize(
    ("changed", "found", "means"),
    [
        (("orders:", "order:"), "invalid username-password", "refuses the user or password"),
        (("s3cret", "secret"), "invalid username-password", "refuses the user or password"),
        (("authority.pem", "stranger.pem"), "certificate verify failed", "ssl_ca_certs"),
        (("rediss://", "redis://"), "", "rediss://"),
        (("127.0.0.1", "localhost"), "certificate", "is for another host name"),
    ],
)
def test_what_is_wrong_is_named(
    address: str, changed: tuple[str, str], found: str, means: str
) -> None:
    url = address.replace(*changed, 1)
    if url.startswith("redis:"):
        url = url.partition("?")[0]  # what is said of certificates is refused there
    with override_settings(REDIS_URL=url):
        [result] = check_redis()
    assert found in result.found, result
    assert means in result.means, result
    assert "s3cret" not in str(result)


def test_what_the_user_may_not_do_is_named(address: str) -> None:
    with override_settings(REDIS_URL=address.replace("orders:s3cret%2F1", "weak:weak")):
        [result] = check_redis()
    assert "no permissions" in result.found, result
    assert MAY in result.means
