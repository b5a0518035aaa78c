"""The groups of people who look at the page and of those who act on it, so that an admin need not collect
permissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import transaction

from operations.acting import ACTIONS
from operations.pages import LETTERS
from outbox import conf

__all__ = ["GROUPS", "make_groups"]

VIEWER = frozenset(
    {
        "outbox.view_outboxevent",  # journeys
        LETTERS,  # errors and payloads of dead letters, without their secrets
        "outbox.view_operatoraction",  # all of who did what, in the admin
    }
)
# What a viewer may, and what any action of the page needs.
OPERATOR = (
    VIEWER
    | {action.permission for action in ACTIONS.values()}
    | {source.permission for source in conf.letter_sources()}
)
GROUPS: Mapping[str, frozenset[str]] = {"viewer": VIEWER, "operator": OPERATOR}


def make_groups() -> Sequence[str]:
    """Make those that are not there; the names of those that were made. One that is there keeps the
    permissions that an admin gave it. Permissions that the table lacks are made, as `migrate` makes them."""
    made = []
    for name, permissions in GROUPS.items():
        with transaction.atomic():
            group, is_new = Group.objects.get_or_create(name=name)
            if is_new:
                group.permissions.set(_made(permissions))
                made.append(name)
    return made


def _made(names: frozenset[str]) -> list[Permission]:
    wanted = [name.split(".") for name in sorted(names)]
    for app in {app for app, _ in wanted}:
        create_permissions(apps.get_app_config(app), verbosity=0)
    return [
        Permission.objects.get(content_type__app_label=app, codename=codename)
        for app, codename in wanted
    ]
