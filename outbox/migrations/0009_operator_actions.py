from django.db import migrations, models


class Migration(migrations.Migration):
    """See outbox/operator_log.py."""

    dependencies = [("outbox", "0008_unknown_types")]

    operations = [
        migrations.CreateModel(
            name="OperatorAction",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_default=models.Func(function="clock_timestamp"))),
                ("by", models.TextField()),
                (
                    "what",
                    models.TextField(help_text="pause, resume, replay, discard, reset, take, stop."),
                ),
                ("subject", models.TextField(help_text="On what.")),
                ("why", models.TextField(blank=True, db_default="")),
                ("asked", models.IntegerField(help_text="How many things it is about.", null=True)),
                ("done", models.IntegerField(db_default=0)),
                (
                    "skipped",
                    models.IntegerField(db_default=0, help_text="Left as they were."),
                ),
                (
                    "ended_at",
                    models.DateTimeField(help_text="Empty while it is under way.", null=True),
                ),
                ("outcome", models.TextField(blank=True, db_default="")),
                (
                    "once",
                    models.UUIDField(
                        help_text="Of the form: sent twice it acts once.", null=True, unique=True
                    ),
                ),
                (
                    "run",
                    models.JSONField(
                        help_text="What is still to be done, and how fast.", null=True
                    ),
                ),
            ],
            options={
                "verbose_name": "operator action",
                "db_table": "operator_action",
                "indexes": [
                    models.Index(
                        condition=models.Q(("ended_at", None), ("run__isnull", False)),
                        fields=["id"],
                        name="operator_action_open",
                    )
                ],
            },
        ),
    ]
