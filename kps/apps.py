"""How Django loads this app."""

from django.apps import AppConfig


class KpsConfig(AppConfig):
    name = "kps"
    default_auto_field = "django.db.models.BigAutoField"
