from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """See outbox/dead_letters/unknown_type.py."""

    atomic = False  # the index is built while letters are written

    dependencies = [("outbox", "0007_status_view")]

    operations = [
        AddIndexConcurrently(
            model_name="deadletter",
            index=models.Index(
                fields=["handler", "type"],
                name="dead_letter_unknown_type",
                condition=models.Q(state=1, error__startswith="unknown type"),
            ),
        ),
    ]
