from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Without locking writers out, so not in a transaction."""

    atomic = False

    dependencies = [("orders", "0001_initial")]

    operations = [
        AddIndexConcurrently(
            model_name="order",
            index=models.Index(fields=["customer_id", "created_at", "id"], name="orders_of_customer"),
        ),
        AddIndexConcurrently(
            model_name="order",
            index=models.Index(fields=["status", "created_at", "id"], name="orders_of_status"),
        ),
    ]
