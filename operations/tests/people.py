"""People of the admin, as cookies of a session."""

from __future__ import annotations

from django.contrib.auth.models import Permission, User

from devtools.testing.sessions import cookie_of

__all__ = ["cookie_of", "staff"]


def staff(name: str, *permissions: str) -> User:
    """Somebody of the staff with these permissions, as in `outbox.view_outboxevent`."""
    user = User.objects.create_user(name, is_staff=True)
    for each in permissions:
        app, codename = each.split(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    return user
