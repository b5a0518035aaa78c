"""What events of other producers add is kept apart, and what cannot be folded is set aside.

`sales_metrics` stays the sum of both. Backward only the distinction goes, no figure changes; but
what is set aside would be counted nowhere, so the way back is refused while there is any.
"""

from django.db import migrations, models

VIEW = """
    CREATE VIEW {name} AS
    SELECT metric_name, dimension, sum(value){cast} AS value, max(updated_at) AS updated_at
    FROM (
        SELECT metric_name, dimension, value, updated_at FROM {table}
        UNION ALL
        SELECT part.metric_name, part.dimension, part.value, addition.written_at
        FROM sales_additions addition,
             unnest(metric_names, dimensions, "values") AS part (metric_name, dimension, value)
        {where}
    ) parts
    GROUP BY metric_name, dimension
"""
# Without a bound on its digits: one sum that is too large would fail every read of figures.
FIGURES = VIEW.format(name="sales_figures", cast="", table="sales_metrics", where="")
FIGURES_BEFORE = VIEW.format(
    name="sales_figures", cast="::numeric(30, 2)", table="sales_metrics", where=""
)
FOREIGN_FIGURES = VIEW.format(
    name="sales_figures_foreign",
    cast="",
    table="sales_metrics_foreign",
    where="WHERE addition.is_foreign",
)
# A subquery and no join: a page of the list then reads as many rows of either table as it shows.
LISTING = """
    CREATE VIEW sales_metrics_listing AS
    SELECT metric_name || ':' || dimension AS id, metric_name, dimension, value, updated_at,
           coalesce((SELECT theirs.value FROM sales_metrics_foreign theirs
                     WHERE theirs.metric_name = figure.metric_name
                       AND theirs.dimension = figure.dimension), 0) AS foreign_value
    FROM sales_metrics figure
"""
LISTING_BEFORE = """
    CREATE VIEW sales_metrics_listing AS
    SELECT metric_name || ':' || dimension AS id, metric_name, dimension, value, updated_at
    FROM sales_metrics
"""
REFUSE_WHILE_SET_ASIDE = """
    DO $$ BEGIN
        LOCK TABLE sales_set_aside IN ACCESS EXCLUSIVE MODE;
        IF EXISTS (SELECT FROM sales_set_aside) THEN
            RAISE EXCEPTION 'Figures are set aside, which this migration would lose: '
                'fold or delete them first (docs/operations.md, FiguresSetAside).';
        END IF;
    END $$
"""
METRIC_NAMES = [
    ("orders_total", "Orders Total"),
    ("revenue_total", "Revenue Total"),
    ("orders_per_minute", "Orders Per Minute"),
    ("top_products", "Top Products"),
]


class Migration(migrations.Migration):
    dependencies = [("analytics", "0004_sales_additions")]

    operations = [
        migrations.AddField(
            model_name="salesaddition",
            name="is_foreign",
            field=models.BooleanField(
                db_default=False, help_text="Of events that our outbox does not hold."
            ),
        ),
        migrations.CreateModel(
            name="ForeignSalesMetric",
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
                ("metric_name", models.TextField(choices=METRIC_NAMES)),
                ("dimension", models.TextField()),
                ("value", models.DecimalField(decimal_places=2, max_digits=30)),
                ("updated_at", models.DateTimeField()),
            ],
            options={"db_table": "sales_metrics_foreign"},
        ),
        migrations.CreateModel(
            name="SetAsideFigure",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("metric_name", models.TextField()),
                ("dimension", models.TextField()),
                ("value", models.DecimalField(decimal_places=2, max_digits=1000)),
                ("is_foreign", models.BooleanField()),
                (
                    "written_at",
                    models.DateTimeField(help_text="When the last event of it was applied."),
                ),
                ("error", models.TextField()),
                (
                    "set_aside_at",
                    models.DateTimeField(db_default=models.Func(function="clock_timestamp")),
                ),
            ],
            options={
                "db_table": "sales_set_aside",
                "verbose_name": "figure set aside",
                "verbose_name_plural": "figures set aside",
            },
        ),
        migrations.RunSQL(
            f"DROP VIEW sales_figures; {FIGURES}", f"DROP VIEW sales_figures; {FIGURES_BEFORE}"
        ),
        migrations.RunSQL(FOREIGN_FIGURES, "DROP VIEW sales_figures_foreign"),
        migrations.AddField(
            model_name="salesmetriclisting",
            name="foreign_value",
            field=models.DecimalField(
                "of other producers",
                decimal_places=2,
                max_digits=30,
                help_text="The part of it that comes from events which our outbox does not hold.",
            ),
            preserve_default=False,
        ),
        migrations.RunSQL(
            f"DROP VIEW sales_metrics_listing; {LISTING}",
            f"DROP VIEW sales_metrics_listing; {LISTING_BEFORE}",
        ),
        migrations.RunSQL(
            "ALTER TABLE sales_metrics_foreign SET (fillfactor = 50,"
            " autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,"
            " autovacuum_vacuum_cost_delay = 0)",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(migrations.RunSQL.noop, REFUSE_WHILE_SET_ASIDE),
    ]
