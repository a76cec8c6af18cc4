"""`manage.py guardian_fingerprint`: what tenants compare, by another way than this network, before they trust us."""

from django.core.management.base import BaseCommand
from django.utils import timezone

from kps import service


class Command(BaseCommand):
    help = "Print the fingerprint of this fabric's guardian."

    def handle(self, *args: object, **options: object) -> None:
        self.stdout.write(service.guardian_fingerprint(now=timezone.now()))
