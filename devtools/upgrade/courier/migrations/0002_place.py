"""Of the newer release alone; the older one does not have this file."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('courier', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='courierentry',
            name='place',
            field=models.TextField(db_default=''),
        ),
    ]
