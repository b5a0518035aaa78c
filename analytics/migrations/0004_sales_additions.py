"""What chunks add becomes rows of their own, folded into sales_metrics later.

Backward they are folded first: they are counted nowhere else. A figure that cannot be added ends the
way back with PostgreSQL's error, and nothing is changed.
"""

import django.contrib.postgres.fields
from django.db import migrations, models

# Nobody adds or folds until the table is gone.
FOLD_ALL = """
    LOCK TABLE sales_additions IN ACCESS EXCLUSIVE MODE;
    INSERT INTO sales_metrics (metric_name, dimension, value, updated_at)
    SELECT part.metric_name, part.dimension, sum(part.value), max(addition.written_at)
    FROM sales_additions addition,
         unnest(metric_names, dimensions, "values") AS part (metric_name, dimension, value)
    GROUP BY 1, 2
    ON CONFLICT (metric_name, dimension) DO UPDATE
    SET value = sales_metrics.value + excluded.value,
        updated_at = greatest(sales_metrics.updated_at, excluded.updated_at);
    DELETE FROM sales_additions
"""


class Migration(migrations.Migration):
    dependencies = [("analytics", "0003_sales_overview")]

    operations = [
        migrations.CreateModel(
            name="SalesAddition",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "metric_names",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(), size=None
                    ),
                ),
                (
                    "dimensions",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(), size=None
                    ),
                ),
                (
                    "values",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.DecimalField(decimal_places=2, max_digits=30), size=None
                    ),
                ),
                ("written_at", models.DateTimeField()),
            ],
            options={"db_table": "sales_additions"},
        ),
        migrations.CreateModel(
            name="SalesFigure",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "metric_name",
                        "dimension",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "metric_name",
                    models.TextField(
                        choices=[
                            ("orders_total", "Orders Total"),
                            ("revenue_total", "Revenue Total"),
                            ("orders_per_minute", "Orders Per Minute"),
                            ("top_products", "Top Products"),
                        ]
                    ),
                ),
                ("dimension", models.TextField()),
                ("value", models.DecimalField(decimal_places=2, max_digits=30)),
                ("updated_at", models.DateTimeField()),
            ],
            options={"db_table": "sales_figures", "managed": False},
        ),
        migrations.RunSQL(
            """
            CREATE VIEW sales_figures AS
            SELECT metric_name, dimension, sum(value)::numeric(30, 2) AS value,
                   max(updated_at) AS updated_at
            FROM (
                SELECT metric_name, dimension, value, updated_at FROM sales_metrics
                UNION ALL
                SELECT part.metric_name, part.dimension, part.value, addition.written_at
                FROM sales_additions addition,
                     unnest(metric_names, dimensions, "values")
                         AS part (metric_name, dimension, value)
            ) parts
            GROUP BY metric_name, dimension
            """,
            "DROP VIEW sales_figures",
        ),
        migrations.RunSQL(
            "ALTER TABLE sales_additions SET (autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0)",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(migrations.RunSQL.noop, FOLD_ALL),  # the first thing on the way back
    ]
