"""Make the admin user of the local stack."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from eventsite.settings.env import Environment

DEFAULT_PASSWORD = Environment.model_fields["admin_password"].default


class Command(BaseCommand):
    """Makes it once and says the login each time; an existing user's password is left alone."""

    help = "Creates the admin user ADMIN_USERNAME with ADMIN_PASSWORD unless there is one."

    def handle(self, *args: Any, **options: Any) -> None:
        name, password = settings.ADMIN_USERNAME, settings.ADMIN_PASSWORD
        users = get_user_model().objects
        existing = users.filter(username=name).first()
        if existing is None:
            if not password:
                raise CommandError("Set ADMIN_PASSWORD to create the admin user.")
            users.create_superuser(username=name, password=password)
        elif not password or not existing.check_password(password):
            self.stdout.write(f"Admin login: {name} / the password that was set earlier")
            return
        # A password that somebody has chosen does not belong in a log.
        shown = password if password == DEFAULT_PASSWORD else "the password of ADMIN_PASSWORD"
        self.stdout.write(f"Admin login: {name} / {shown}")
