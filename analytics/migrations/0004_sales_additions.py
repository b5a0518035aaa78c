"""What chunks add becomes rows of their own, folded into sales_metrics later."""

import django.contrib.postgres.fields
from django.db import migrations, models


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
    ]
