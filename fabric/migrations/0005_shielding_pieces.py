"""Shielding data rests by its pieces, as it comes and goes.

A file in the form before, which was one text, is no shielding data any more: what is here of it is withdrawn, as if its
owner had done it, and machines that were made from it go on.
"""

import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.utils import timezone


def withdraw_the_form_before(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    found = apps.get_model("fabric", "ShieldingData").objects.filter(withdrawn_at=None)
    found.update(head="", withdrawn_at=timezone.now(), withdrawn_by="system")


class Migration(migrations.Migration):

    dependencies = [
        ("fabric", "0004_shielding_data"),
    ]

    operations = [
        migrations.RenameField(model_name="shieldingdata", old_name="file", new_name="head"),
        migrations.CreateModel(
            name="ShieldingPiece",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveSmallIntegerField()),
                ("sealed", models.TextField()),
                (
                    "data",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="pieces", to="fabric.shieldingdata"
                    ),
                ),
            ],
            options={"ordering": ["number"]},
        ),
        migrations.AddConstraint(
            model_name="shieldingpiece",
            constraint=models.UniqueConstraint(fields=("data", "number"), name="one_piece_of_a_number"),
        ),
        migrations.RunPython(withdraw_the_form_before, migrations.RunPython.noop),
    ]
