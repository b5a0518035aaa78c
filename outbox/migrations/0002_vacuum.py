"""Vacuum settings of the tables that grow with every event."""

from django.db import migrations

# By rows, not by share of the table: at a million published rows a fifth of them would have to
# die before autovacuum looked at the pending index again.
VACUUM = """
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
"""


class Migration(migrations.Migration):
    dependencies = [("outbox", "0001_initial")]

    operations = [
        migrations.RunSQL(
            f"ALTER TABLE event_outbox SET (fillfactor = 85, {VACUUM})", migrations.RunSQL.noop
        ),
        migrations.RunSQL(f"ALTER TABLE inbox_receipt SET ({VACUUM})", migrations.RunSQL.noop),
        migrations.RunSQL(
            "ALTER TABLE bridge_position SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)",
            migrations.RunSQL.noop,
        ),
    ]
