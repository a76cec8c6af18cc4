"""PostgreSQL compresses logs with lz4: its own pglz takes longer for a boot log than the appraisal does."""

from collections.abc import Callable

from django.apps.registry import Apps
from django.db import NotSupportedError, migrations, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


Step = Callable[[Apps, BaseDatabaseSchemaEditor], None]


def compress(method: str) -> Step:
    def run(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
        if editor.connection.vendor != "postgresql":
            return
        try:
            with transaction.atomic(editor.connection.alias):
                editor.execute(f"ALTER TABLE attestation_blob ALTER COLUMN content SET COMPRESSION {method}")
        except NotSupportedError:  # a server that was built without lz4; what it does instead is right, and slower
            pass

    return run


class Migration(migrations.Migration):
    dependencies = [("attestation", "0012_lean_indexes")]

    operations = [migrations.RunPython(compress("lz4"), compress("pglz"))]
