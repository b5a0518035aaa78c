"""What has failed and nobody has discarded, in the order of its ids: however many were discarded."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    atomic = False  # PostgreSQL builds no index beside writers within a transaction

    dependencies = [("notifications", "0003_channels")]

    operations = [
        AddIndexConcurrently(
            "notification",
            models.Index(
                fields=["id"],
                name="notifications_failed",
                condition=Q(status="failed", discarded_at__isnull=True),
            ),
        ),
    ]
