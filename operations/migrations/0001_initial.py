from django.db import migrations, models


class Migration(migrations.Migration):
    """See operations/past.py."""

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Minute",
            fields=[
                ("at", models.DateTimeField(primary_key=True, serialize=False)),
                ("told", models.JSONField()),
            ],
            options={"db_table": "operations_minute"},
        ),
    ]
