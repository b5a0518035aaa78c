"""The admin's view of the figures, and vacuum settings of their hot rows."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("analytics", "0001_initial")]

    operations = [
        migrations.RunSQL(
            """
            CREATE VIEW sales_metrics_listing AS
            SELECT metric_name || ':' || dimension AS id, metric_name, dimension, value, updated_at
            FROM sales_metrics
            """,
            "DROP VIEW sales_metrics_listing",
        ),
        migrations.RunSQL(
            "ALTER TABLE sales_metrics SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)",
            migrations.RunSQL.noop,
        ),
    ]
