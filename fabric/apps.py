"""How Django loads this app, and what it listens to."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate


class FabricConfig(AppConfig):
    name = "fabric"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from fabric import inventory, live, roles, shielding
        from ledger.service import recorded, sequenced

        recorded.connect(inventory.keep, dispatch_uid="fabric.inventory")
        recorded.connect(shielding.keep, dispatch_uid="fabric.shielding")
        recorded.connect(live.announce, dispatch_uid="fabric.live")
        sequenced.connect(live.announce_log, dispatch_uid="fabric.live")
        # After the permissions of every app have been made, which is also done on this signal.
        pre_migrate.connect(roles.note, sender=self, dispatch_uid="fabric.roles")
        post_migrate.connect(roles.create, sender=self, dispatch_uid="fabric.roles")
