"""Keys in the database: their life, what is kept of them, and the order of revisions."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
import structlog
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from apikeys import queries, services
from apikeys.models import ApiKey, hash_of, prefix_of
from apikeys.services import InvalidKey
from devtools.testing.patience import PATIENCE

NOW = datetime(2026, 3, 11, 22, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db


def create(name: str = "shop", expires_at: datetime | None = None) -> services.NewKey:
    return services.create_key(
        name=name, scopes=["orders:read"], expires_at=expires_at, by="me", at=NOW
    )


def test_only_prefix_and_hash_are_kept() -> None:
    new = create()
    row = ApiKey.objects.values().get()
    assert bytes(row["sha256"]) == hash_of(new.key)
    assert row["prefix"] == prefix_of(new.key)
    secret = new.key.removeprefix(row["prefix"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_keys::text FROM api_keys")
        assert secret.strip("_") not in cursor.fetchone()[0]
    assert new.key != create("other").key


def test_the_log_tells_who_did_what_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    log = structlog.testing.CapturingLogger()  # the tests' own level is above these lines'
    monkeypatch.setattr(services, "log", log)
    old = create()
    new = services.rotate_key(prefix=old.row.prefix, grace=HOUR, by="me", at=NOW)
    services.revoke_key(prefix=new.row.prefix, by="me", at=NOW)
    assert [(call.args[0], call.kwargs["by"]) for call in log.calls] == [
        ("api_key_created", "me"),
        ("api_key_created", "me"),
        ("api_key_rotated", "me"),
        ("api_key_revoked", "me"),
    ]
    for each in (old, new):
        assert each.key.removeprefix(each.row.prefix) not in str(log.calls)


@pytest.mark.parametrize("spoil", ["", "x", "ek_", "{}0", "{}\n", " {}"])
def test_what_is_no_key_has_no_hash(spoil: str) -> None:
    key = create().key
    assert hash_of(key) is not None
    assert hash_of(spoil.format(key)) is None
    assert hash_of(key[:-1]) is None
    assert hash_of(key.upper()) is None


@pytest.mark.parametrize("name", ["", "a b", "anonymous", "é", "a" * 64, "-x", "x\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidKey, match="A name is"):
        create(name)
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("scopes", [[], ["orders:fly"], ["orders:read", "x"]])
def test_bad_scopes(scopes: list[str]) -> None:
    with pytest.raises(InvalidKey, match=r"orders:read, orders:write"):
        services.create_key(name="shop", scopes=scopes, by="me", at=NOW)


def test_an_expiry_in_the_past_is_refused() -> None:
    with pytest.raises(InvalidKey, match="future"):
        create(expires_at=NOW)


def test_a_name_has_one_owner_while_its_key_lives() -> None:
    new = create()
    with pytest.raises(InvalidKey, match="rotate or revoke"):
        create()
    services.revoke_key(prefix=new.row.prefix, by="me", at=NOW)
    create()
    assert ApiKey.objects.count() == 2


def test_rotation_leaves_the_old_key_its_grace() -> None:
    old = create()
    new = services.rotate_key(prefix=old.row.prefix, grace=HOUR, by="me", at=NOW)
    assert (new.row.name, new.row.scopes) == ("shop", ["orders:read"])
    assert new.key != old.key
    expiries = dict(ApiKey.objects.values_list("prefix", "expires_at"))
    assert expiries == {old.row.prefix: NOW + HOUR, new.row.prefix: None}


def test_rotation_does_not_lengthen_a_life() -> None:
    old = create(expires_at=NOW + HOUR)
    services.rotate_key(prefix=old.row.prefix, grace=2 * HOUR, by="me", at=NOW)
    assert ApiKey.objects.get(prefix=old.row.prefix).expires_at == NOW + HOUR


def test_only_a_live_key_is_rotated() -> None:
    old = create(expires_at=NOW + HOUR)
    with pytest.raises(InvalidKey, match="No live key"):
        services.rotate_key(prefix=old.row.prefix, grace=HOUR, by="me", at=NOW + HOUR)
    services.revoke_key(prefix=old.row.prefix, by="me", at=NOW)
    with pytest.raises(InvalidKey, match="No live key"):
        services.rotate_key(prefix=old.row.prefix, grace=HOUR, by="me", at=NOW)
    assert ApiKey.objects.count() == 1


def test_revoking_twice_keeps_the_first_moment() -> None:
    prefix = create().row.prefix
    assert services.revoke_key(prefix=prefix, by="me", at=NOW)
    assert not services.revoke_key(prefix=prefix, by="me", at=NOW + HOUR)
    assert ApiKey.objects.get().revoked_at == NOW
    with pytest.raises(InvalidKey, match="No key"):
        services.revoke_key(prefix="ek_00000000", by="me", at=NOW)


def test_every_change_is_a_later_revision_and_a_use_is_none() -> None:
    first, second = create("a"), create("b")
    seen = queries.changed_since(0)
    assert [key.name for key in seen] == ["a", "b"]
    mark = seen[-1].revision
    services.note_use([first.row.id, second.row.id])
    assert ApiKey.objects.exclude(last_used_at=None).count() == 2
    assert queries.changed_since(mark) == []
    ApiKey.objects.filter(name="a").update(scopes=["orders:write"])
    [changed] = queries.changed_since(mark)
    assert (changed.name, changed.scopes) == ("a", frozenset({"orders:write"}))
    services.revoke_key(prefix=second.row.prefix, by="me", at=NOW)
    [revoked] = queries.changed_since(changed.revision)
    assert (revoked.name, revoked.revoked) == ("b", True)


def test_uses_are_noted_coarsely() -> None:
    row = create().row
    services.note_use([row.id])
    noted = ApiKey.objects.get().last_used_at
    services.note_use([row.id])
    assert ApiKey.objects.get().last_used_at == noted
    long_ago = NOW - timedelta(days=365)
    ApiKey.objects.update(last_used_at=long_ago)
    services.note_use([row.id])
    last = ApiKey.objects.get().last_used_at
    assert last is not None
    assert last > long_ago


@pytest.mark.django_db(transaction=True)
def test_no_revision_is_missed() -> None:
    """A change that drew its number earlier is visible before one that drew it later: whoever
    comes second waits for the first's COMMIT."""
    create("a")
    create("b")
    waited = threading.Event()

    def change_b() -> None:
        ApiKey.objects.filter(name="b").update(expires_at=NOW)
        waited.set()
        connection.close()

    second = threading.Thread(target=change_b)
    with transaction.atomic():
        ApiKey.objects.filter(name="a").update(expires_at=NOW)
        second.start()
        assert not waited.wait(0.5)
    second.join(PATIENCE)
    assert [key.name for key in queries.changed_since(0)] == ["a", "b"]


# The command


def run(*arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("api_keys", *arguments, stdout=out, stderr=err)
    return out.getvalue().strip(), err.getvalue().strip()


def test_command_goes_through_a_keys_life() -> None:
    key, said = run("create", "shop", "--scope", "orders:read", "--scope", "orders:write")
    row = ApiKey.objects.get()
    assert bytes(row.sha256) == hash_of(key)
    assert "not shown again" in said
    assert key not in said
    line, _ = run("list")
    assert line == f"{row.prefix}  shop  live  used never  orders:read orders:write"
    rotated, _ = run("rotate", row.prefix, "--grace", "2h")
    assert {bytes(each.sha256) for each in ApiKey.objects.all()} == {hash_of(key), hash_of(rotated)}
    assert "expires 20" in run("list", "shop")[0]
    assert run("revoke", row.prefix)[0] == "Revoked."
    assert run("revoke", row.prefix)[0] == "It was already revoked."
    listed, _ = run("list", "shop")
    assert f"{row.prefix}  shop  revoked" in listed
    assert key not in listed
    assert run("list", "nobody")[0] == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "anonymous", "--scope", "orders:read"),
        ("create", "shop", "--scope", "orders:fly"),
        ("rotate", "ek_00000000"),
        ("revoke", "ek_00000000"),
        ("create", "shop"),
        ("create", "shop", "--scope", "orders:read", "--expires-in", "soon"),
    ],
)
def test_command_says_what_is_wrong(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)
    assert not ApiKey.objects.exists()


def test_expiry_of_a_created_key() -> None:
    run("create", "shop", "--scope", "orders:read", "--expires-in", "90d")
    row = ApiKey.objects.get()
    assert row.expires_at is not None
    assert abs(row.expires_at - row.created_at - timedelta(days=90)) < HOUR
