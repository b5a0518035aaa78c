from django.db import migrations, models


class Migration(migrations.Migration):
    """See outbox/handlers/pause.py."""

    dependencies = [("outbox", "0005_lane_rewinds")]

    operations = [
        migrations.AddField(
            model_name="handlercontrol",
            name="parks_failures_until",
            field=models.DateTimeField(
                null=True,
                help_text="Until then failures are parked and its circuit does not trip.",
            ),
        ),
    ]
