"""Keys change in pairs: what was the primary key of each purpose becomes the first pair."""

from typing import Any

import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from kps.core import jose
from kps.core.guardian import Guardian


def pair_up(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    key: Any = apps.get_model("kps", "ServiceKey")
    pair: Any = apps.get_model("kps", "GuardianPair")
    found = {each.purpose: each for each in key.objects.filter(primary=True)}
    if len(found) != 2:
        return
    signing, encryption = found["signing"], found["encryption"]
    card = Guardian("-", jose.parse_public_key(signing.public), jose.parse_public_key(encryption.public))
    since = max(signing.created_at, encryption.created_at)
    pair.objects.create(
        number=1,
        signing=signing,
        encryption=encryption,
        fingerprint=card.fingerprint,
        state="primary",
        created_at=since,
        primary_since=since,
    )


def mark_primary(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    key: Any = apps.get_model("kps", "ServiceKey")
    pair: Any = apps.get_model("kps", "GuardianPair")
    for each in pair.objects.filter(state="primary"):
        key.objects.filter(pk__in=[each.signing_id, each.encryption_id]).update(primary=True)


class Migration(migrations.Migration):
    dependencies = [("kps", "0002_append_only")]
    operations = [
        migrations.CreateModel(
            name="GuardianPair",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(unique=True)),
                ("fingerprint", models.CharField(max_length=64, unique=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("prepared", "Prepared"),
                            ("primary", "In use"),
                            ("former", "Opens still"),
                            ("disabled", "Disabled"),
                        ],
                        max_length=10,
                    ),
                ),
                ("succession", models.TextField(blank=True)),
                ("created_at", models.DateTimeField()),
                ("primary_since", models.DateTimeField(null=True)),
                ("primary_until", models.DateTimeField(null=True)),
                ("disabled_at", models.DateTimeField(null=True)),
                (
                    "before",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="kps.guardianpair",
                    ),
                ),
                (
                    "encryption",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="kps.servicekey"
                    ),
                ),
                (
                    "signing",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="kps.servicekey"
                    ),
                ),
            ],
            options={
                "ordering": ["-number"],
                "permissions": [
                    ("rotate", "May prepare guardian keys, and put a change of them forward"),
                    ("decide_rotation", "May decide changes of the guardian keys"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state", "primary")), fields=("state",), name="one_primary_pair"
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("state", "prepared")), fields=("state",), name="one_prepared_pair"
                    ),
                ],
            },
        ),
        migrations.RunPython(pair_up, mark_primary),
        # So that on the way back there is something to fill the column with.
        migrations.AlterField("servicekey", "primary", models.BooleanField(default=False)),
        migrations.RemoveConstraint(model_name="servicekey", name="one_primary_key_per_purpose"),
        migrations.RemoveField(model_name="servicekey", name="primary"),
    ]
