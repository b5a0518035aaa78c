"""The login is said each time, and no password that somebody has chosen."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

pytestmark = pytest.mark.django_db


def said() -> str:
    out = StringIO()
    call_command("ensure_admin", stdout=out)
    return out.getvalue()


def test_the_login_is_said_each_time() -> None:
    assert said() == said() == "Admin login: admin / admin\n"
    assert User.objects.get().check_password("admin")


def test_a_chosen_password_is_not_shown(settings: Any) -> None:
    settings.ADMIN_PASSWORD = "chosen-by-somebody"
    assert said() == said() == "Admin login: admin / the password of ADMIN_PASSWORD\n"
    assert User.objects.get().check_password("chosen-by-somebody")


def test_a_password_that_was_changed_is_left_alone(settings: Any) -> None:
    said()
    user = User.objects.get()
    user.set_password("changed")
    user.save()
    assert said() == "Admin login: admin / the password that was set earlier\n"
    settings.ADMIN_PASSWORD = ""
    assert said() == "Admin login: admin / the password that was set earlier\n"
    assert User.objects.get().check_password("changed")


def test_no_user_is_made_without_a_password(settings: Any) -> None:
    settings.ADMIN_PASSWORD = ""
    with pytest.raises(CommandError, match="Set ADMIN_PASSWORD"):
        said()
    assert not User.objects.exists()
