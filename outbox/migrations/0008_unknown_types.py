from django.db import migrations, models


class Migration(migrations.Migration):
    """See outbox/dead_letters/unknown_type.py."""

    dependencies = [("outbox", "0007_status_view")]

    operations = [
        migrations.AddIndex(
            model_name="deadletter",
            index=models.Index(
                fields=["handler", "type"],
                name="dead_letter_unknown_type",
                condition=models.Q(state=1, error__startswith="unknown type"),
            ),
        ),
    ]
