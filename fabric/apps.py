"""How Django loads this app."""

from django.apps import AppConfig


class FabricConfig(AppConfig):
    name = "fabric"
    default_auto_field = "django.db.models.BigAutoField"
