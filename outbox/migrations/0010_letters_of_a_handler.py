from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """For the count of each handler's open letters, which those of no other handler hide."""

    atomic = False  # the index is built while letters are written

    dependencies = [("outbox", "0009_operator_actions")]

    operations = [
        AddIndexConcurrently(
            model_name="deadletter",
            index=models.Index(
                fields=["handler", "state", "id"],
                name="dead_letter_open_handler",
                condition=models.Q(state__lt=3),
            ),
        ),
    ]
