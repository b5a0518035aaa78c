from django.db import migrations, models


class Migration(migrations.Migration):
    """See outbox/lanes/floors.py."""

    dependencies = [("outbox", "0004_upkeep")]

    operations = [
        migrations.AddField(
            model_name="outboxlane",
            name="rewinds",
            field=models.BigIntegerField(
                db_default=0, help_text="Times that rows of it were made pending again."
            ),
        ),
    ]
