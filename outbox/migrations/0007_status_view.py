from django.db import migrations


class Migration(migrations.Migration):
    """`event_outbox_status`: the outbox for whoever looks into the database, its status in words.

    One branch a status, so that a query for NEW or HELD reads the index of those alone. PostgreSQL
    lets no column be altered or dropped that a view names: a migration that does so drops the view
    first and creates it again.
    """

    dependencies = [("outbox", "0006_parks_failures")]

    operations = [
        migrations.RunSQL(
            sql="CREATE VIEW event_outbox_status AS "
            + " UNION ALL ".join(
                f"""
                SELECT id, event_id, topic, key, type, '{word}'::text AS status, created_at,
                    published_at, "partition", "offset", correlation_id
                FROM event_outbox WHERE status = {number}
                """
                for number, word in enumerate(("NEW", "PUBLISHED", "HELD", "DEAD"))
            ),
            reverse_sql="DROP VIEW event_outbox_status",
        )
    ]
