"""The groups that every deployment has: a viewer sees all of the page, an operator may do all of it, and what
an admin makes of a group stays."""

from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command

from devtools.testing.web import Web
from operations.acting import ACTIONS
from operations.tests.people import cookie_of
from outbox import conf
from outbox.handlers.pause import register_handlers
from outbox.tests.letters import HANDLER

READ = ("/ops/", "/ops/journey?id=1", "/ops/letters", "/ops/lanes")


def said() -> str:
    out = StringIO()
    call_command("ensure_groups", stdout=out)
    return out.getvalue()


def member_of(name: str) -> dict[str, str]:
    """The session of somebody new of the staff who is in this group alone."""
    user = User.objects.create_user(name, is_staff=True)
    user.groups.add(Group.objects.get(name=name))
    return cookie_of(user)


def permissions_of(name: str) -> set[str]:
    found = Group.objects.get(name=name).permissions.select_related("content_type")
    return {f"{each.content_type.app_label}.{each.codename}" for each in found}


def test_a_viewer_reads_all_and_presses_nothing(web: Web, permissions: None) -> None:
    said()
    register_handlers([HANDLER])
    viewer = member_of("viewer")
    for path in READ:
        answer = web.get(path, **viewer)
        assert answer.status == 200, path
        assert b"/ops/act/" not in answer.body
    for name in ACTIONS:
        assert web.get(f"/ops/act/{name}", **viewer).status == 403


def test_an_operator_may_do_everything(web: Web, permissions: None) -> None:
    said()
    register_handlers([HANDLER])
    operator = member_of("operator")
    for path in READ:
        assert web.get(path, **operator).status == 200, path
    for name in ACTIONS:
        assert web.get(f"/ops/act/{name}?on=nothing", **operator).status != 403, name
    assert {source.permission for source in conf.letter_sources()} <= permissions_of("operator")


@pytest.mark.django_db
def test_what_an_admin_changed_stays(permissions: None) -> None:
    assert said() == "Group viewer was made.\nGroup operator was made.\n"
    group = Group.objects.get(name="operator")
    group.permissions.remove(Permission.objects.get(codename="change_outboxlane"))
    group.permissions.add(Permission.objects.get(codename="view_order"))
    before = permissions_of("operator")
    Group.objects.get(name="viewer").permissions.clear()
    assert said() == ""
    assert permissions_of("operator") == before
    assert permissions_of("viewer") == set()


@pytest.mark.django_db
def test_permissions_that_are_not_there_are_made() -> None:
    Permission.objects.all().delete()
    assert said() == "Group viewer was made.\nGroup operator was made.\n"
    assert "outbox.change_outboxlane" in permissions_of("operator")
