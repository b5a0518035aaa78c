"""Pausing lanes, where handlers began, and what the audit and the purge remember."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('outbox', '0003_dead_letters'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditOpen',
            fields=[
                ('pk', models.CompositePrimaryKey('handler', 'outbox_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('handler', models.TextField()),
                ('outbox_id', models.BigIntegerField()),
                ('state', models.TextField()),
            ],
            options={
                'verbose_name': 'open event of the audit',
                'db_table': 'audit_open',
            },
        ),
        migrations.CreateModel(
            name='UpkeepMark',
            fields=[
                ('name', models.TextField(primary_key=True, serialize=False)),
                ('row_id', models.BigIntegerField(db_default=0, help_text='Rows up to this id need not be looked at again.')),
                ('done_at', models.DateTimeField(db_default=models.Func(function='clock_timestamp'))),
            ],
            options={
                'verbose_name': 'upkeep mark',
                'db_table': 'outbox_upkeep',
            },
        ),
        migrations.AddField(
            model_name='bridgeposition',
            name='start_offset',
            field=models.BigIntegerField(db_default=0, help_text='Where the handler began: what lies before is not its business; -1: in an older log, so all of this one is.'),
        ),
        migrations.AddField(
            model_name='outboxlane',
            name='paused',
            field=models.BooleanField(db_default=False),
        ),
        migrations.AddField(
            model_name='outboxlane',
            name='paused_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='outboxlane',
            name='paused_by',
            field=models.TextField(blank=True, db_default=''),
        ),
        migrations.AddField(
            model_name='outboxlane',
            name='paused_reason',
            field=models.TextField(blank=True, db_default=''),
        ),
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(condition=models.Q(('state__gte', 3)), fields=['resolved_at'], name='dead_letter_resolved'),
        ),
        migrations.RunSQL(
            "ALTER TABLE audit_open SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            "ALTER TABLE outbox_upkeep SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 200)",
            migrations.RunSQL.noop,
        ),
    ]
