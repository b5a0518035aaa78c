"""Make the admin user of the local stack."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    """Makes it once and prints the login; an existing user's password is left alone."""

    help = "Creates the admin user ADMIN_USERNAME with ADMIN_PASSWORD unless there is one."

    def handle(self, *args: Any, **options: Any) -> None:
        name, password = settings.ADMIN_USERNAME, settings.ADMIN_PASSWORD
        users = get_user_model().objects
        if users.filter(username=name).exists():
            self.stdout.write(f"Admin user {name} is there.")
            return
        if not password:
            raise CommandError("Set ADMIN_PASSWORD to make the admin user.")
        users.create_superuser(username=name, password=password)
        self.stdout.write(f"Admin login: {name} / {password}")
