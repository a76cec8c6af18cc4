"""Baselines that nobody has put forward yet: uploaded ones, and those of a change that is being written."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("attestation", "0006_expected_hosts")]

    operations = [
        migrations.AlterField(
            model_name="baseline",
            name="state",
            field=models.CharField(
                choices=[
                    ("drafted", "Not put forward"),
                    ("proposed", "Waits for approval"),
                    ("approved", "Approved"),
                    ("rejected", "Rejected"),
                    ("retired", "Retired"),
                ],
                default="proposed",
                max_length=10,
            ),
        ),
    ]
