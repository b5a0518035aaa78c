"""PostgreSQL that demands TLS and a password: one address lets everything in, and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator, Mapping

import psycopg
import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from devtools.localstack.logins import Installation
from devtools.localstack.postgres import embedded_postgres
from devtools.localstack.state import ephemeral_state
from devtools.localstack.warden import remove
from devtools.testing import zygote
from devtools.testing.certificates import Authority, Issued
from devtools.testing.installed import debian_postgres, needs_debian_postgres, needs_openssl
from devtools.testing.processes import child_environment, free_port
from eventsite.settings.base import _database
from eventsite.web.hot_paths import session
from eventsite.web.hot_paths.session import Session
from eventsite.web.hot_paths.tests.steps import asking
from outbox.upkeep.postgres_checks import advice_on

pytestmark = [needs_debian_postgres, needs_openssl, pytest.mark.django_db]

DEMANDS = """\
hostnossl all orders 127.0.0.1/32 reject
hostssl all orders 127.0.0.1/32 scram-sha-256
"""
WHO = "SELECT ssl, current_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
WRONG = [  # what is changed in the address, what libpq says, what that means
    (("verify-full", "disable"), "no encryption", "sslmode=verify-full"),
    (("authority.pem", "stranger.pem"), "certificate verify failed", "sslrootcert"),
    (("authority.pem", "nothing.pem"), "does not exist", "sslrootcert"),
    (("127.0.0.1", "localhost"), "does not match host name", "is for another host name"),
    (("s3cret", "secret"), "password authentication failed", "refuses the user or password"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    state = ephemeral_state()
    authority = Authority(state.root, "authority")
    Authority(state.root, "stranger")
    issued = authority.issue("postgres")

    def demand(installation: Installation) -> Mapping[str, str]:
        rules = installation.data / "pg_hba.conf"
        rules.write_text(DEMANDS + rules.read_text())
        return {"ssl": "on", **_handed_over(issued, installation)}

    port = free_port()
    server = embedded_postgres(
        state, port, os.environ, ephemeral=True, root=debian_postgres(), prepare=demand
    )
    assert server.unit is not None
    server.unit.start()
    try:
        server.unit.wait_ready(120)
        server.after_ready()
        with psycopg.connect(server.environment["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("CREATE ROLE orders LOGIN PASSWORD 's3cret/1'")
            connection.execute("ALTER DATABASE orders OWNER TO orders")
        believes = f"sslmode=verify-full&sslrootcert={authority.certificate}"
        yield f"postgresql://orders:s3cret%2F1@127.0.0.1:{port}/orders?{believes}"
    finally:
        server.unit.stop()
        remove(str(server.unit.program.directory))  # may lie in the temp folder
        remove(str(state.root))


def _handed_over(issued: Issued, installation: Installation) -> dict[str, str]:
    """Copies that PostgreSQL's user may read, and nobody else, as it demands."""
    settings = {}
    for setting, file in (("ssl_cert_file", issued.certificate), ("ssl_key_file", issued.key)):
        own = installation.data / file.name
        own.write_bytes(file.read_bytes())
        own.chmod(0o600)
        if installation.login:
            os.chown(own, installation.login.uid, installation.login.uid)
        settings[setting] = str(own)
    return settings


def _asked(url: str) -> tuple[bool, str]:
    """Whether the session is encrypted, and whose it is."""
    connections = ConnectionHandler({"default": _database(url)})
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute(WHO)
            encrypted, user = cursor.fetchone()
            return bool(encrypted), str(user)
    finally:
        connections["default"].close()


def test_the_address_alone_lets_us_in(address: str) -> None:
    assert _asked(address) == (True, "orders")


@pytest.mark.parametrize(("changed", "found", "means"), WRONG)
def test_what_is_wrong_is_named(
    address: str, changed: tuple[str, str], found: str, means: str
) -> None:
    with pytest.raises(OperationalError) as raised:
        _asked(address.replace(*changed, 1))
    assert found in str(raised.value)
    assert means in advice_on(raised.value)
    assert "s3cret" not in f"{raised.value}{advice_on(raised.value)}"


def test_a_server_that_is_away_is_just_that(address: str) -> None:
    port = address.rpartition(":")[2].partition("/")[0]
    with pytest.raises(OperationalError) as raised:
        _asked(address.replace(port, str(free_port()), 1))
    assert advice_on(raised.value) == "Start PostgreSQL, or wait until it answers."


def _hot(monkeypatch: pytest.MonkeyPatch, url: str) -> list[tuple[bool, str]]:
    """The same of a session of hot paths, by its reads and by its writes."""
    monkeypatch.setattr(session, "connections", ConnectionHandler({"default": _database(url)}))

    async def scenario() -> list[tuple[bool, str]]:
        hot = Session()
        try:
            read = await hot.rows((WHO, ()))
            written = await hot.transact(asking([(WHO, ())]))
            return [(bool(row[0]), str(row[1])) for row in (*read, *written[0])]
        finally:
            await hot.close()

    return asyncio.run(scenario())


def test_hot_paths_get_in(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _hot(monkeypatch, address) == [(True, "orders")] * 2


@pytest.mark.parametrize(("changed", "found"), [(changed, found) for changed, found, _ in WRONG])
def test_hot_paths_stay_out_for_the_same_reasons(
    address: str, changed: tuple[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(psycopg.OperationalError) as raised:
        _hot(monkeypatch, address.replace(*changed, 1))
    assert found in str(raised.value)


def _manage(command: str, url: str) -> subprocess.CompletedProcess[str]:
    return zygote.run("manage.py", command, environment=child_environment(DATABASE_URL=url))


def test_the_check_of_the_servers_gets_in_and_finds_nothing_wrong(address: str) -> None:
    made = _manage("migrate", address)
    assert made.returncode == 0, made.stderr
    checked = _manage("check_servers", address)  # Kafka and Redis are those of this run
    lines = [line.split(maxsplit=2) for line in checked.stdout.splitlines()]
    found = [(level, what) for level, server, what in lines if server == "postgresql"]
    assert ("ok", "fsync = on") in found
    wrong = {what for level, what in found if level == "error"}
    # Positions are made by sync_routes, which asks Kafka.
    assert {what for what in wrong if not what.endswith(": 0 positions")} == set()


def test_the_check_of_the_servers_names_what_is_wrong(address: str) -> None:
    checked = _manage("check_servers", address.replace("s3cret", "secret", 1))
    assert checked.returncode == 1
    assert "password authentication failed" in checked.stderr
    assert "PostgreSQL refuses the user or password of DATABASE_URL." in checked.stderr
    assert "secret" not in checked.stdout + checked.stderr
