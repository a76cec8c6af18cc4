"""From here on no authority is without a maker and a file; the file's provenance is the authority's."""

import django.db.models.deletion
from django.db import migrations, models

PROTECT = django.db.models.deletion.PROTECT


class Migration(migrations.Migration):
    dependencies = [("attestation", "0009_fill_vendors_and_bundles")]
    operations = [
        migrations.AlterField("endorsementauthority", "not_before", models.DateTimeField()),
        migrations.AlterField("endorsementauthority", "not_after", models.DateTimeField()),
        migrations.AlterField(
            "endorsementauthority",
            "vendor",
            models.ForeignKey(on_delete=PROTECT, related_name="authorities", to="attestation.vendor"),
        ),
        migrations.AlterField(
            "endorsementauthority",
            "bundle",
            models.ForeignKey(on_delete=PROTECT, related_name="authorities", to="attestation.authoritybundle"),
        ),
        migrations.AlterField("endorsementauthority", "provenance", models.CharField(default="", max_length=300)),
        migrations.RemoveField("endorsementauthority", "provenance"),
    ]
