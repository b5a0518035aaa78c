from django.db import migrations, models


class Migration(migrations.Migration):
    """See operations/canary.py."""

    dependencies = [("operations", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Canary",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_default=models.Func(function="clock_timestamp"))),
                ("topic", models.TextField()),
                ("event_id", models.UUIDField()),
            ],
            options={
                "db_table": "operations_canary",
                "indexes": [
                    models.Index(fields=["topic", "id"], name="operations_canary_topic")
                ],
            },
        ),
    ]
