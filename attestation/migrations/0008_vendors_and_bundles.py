"""Makers of TPMs get rows of their own, and every authority its maker, kind, validity and the file it came in."""

import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("attestation", "0007_drafted_baselines")]
    operations = [
        migrations.CreateModel(
            name="Vendor",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=60, unique=True)),
                ("enabled", models.BooleanField(default=True)),
                ("tolerances", models.JSONField(default=list)),
            ],
            options={"ordering": ["name"]},
        ),
        migrations.CreateModel(
            name="AuthorityBundle",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("file_name", models.CharField(max_length=200)),
                ("file_sha256", models.CharField(max_length=64)),
                ("content", models.BinaryField()),
                ("uploaded_by", models.CharField(max_length=200)),
                ("uploaded_at", models.DateTimeField()),
                ("imported_by", models.CharField(blank=True, max_length=200)),
                ("imported_at", models.DateTimeField(null=True)),
                ("provenance", models.TextField(blank=True)),
                ("report", models.JSONField(default=list)),
            ],
            options={"ordering": ["-uploaded_at"]},
        ),
        migrations.AlterModelOptions(
            name="endorsementauthority",
            options={
                "ordering": ["-kind", "title", "fingerprint"],
                "permissions": [("trust_maker", "May say which makers of TPMs are trusted")],
            },
        ),
        migrations.AlterField("endorsementauthority", "name", models.TextField()),
        *(
            migrations.AddField("endorsementauthority", name, field, preserve_default=keep)
            for name, field, keep in (
                ("title", models.CharField(default="", max_length=120), False),
                ("kind", models.CharField(choices=[("root", "Root"), ("intermediate", "Intermediate")], default="root", max_length=12), False),
                ("subject_key", models.CharField(db_index=True, default="", max_length=64), False),
                ("issuer_key", models.CharField(default="", max_length=64), False),
                ("not_before", models.DateTimeField(null=True), True),
                ("not_after", models.DateTimeField(null=True), True),
                ("tolerances", models.JSONField(default=list), True),
                ("path", models.CharField(blank=True, max_length=300), True),
                ("vendor", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="authorities", to="attestation.vendor"), True),
                ("bundle", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="authorities", to="attestation.authoritybundle"), True),
            )
        ),
        migrations.AlterField(
            "attester",
            "ek_verdict",
            models.CharField(
                choices=[
                    ("trusted", "Chain verified"),
                    ("untrusted", "Issuer not trusted"),
                    ("absent", "No EK certificate"),
                    ("refused", "EK certificate refused"),
                ],
                max_length=10,
            ),
        ),
    ]
