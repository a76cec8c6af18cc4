"""`manage.py trust_authority FILE --provenance TEXT`: trust a TPM maker's CA certificates."""

import getpass
from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from attestation.errors import ParseError
from attestation.service import trust_authority


class Command(BaseCommand):
    help = "Trust every certificate of a PEM file as the CA of a TPM maker."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--provenance", required=True, help="where the certificates come from, kept for good")

    def handle(self, *args: object, **options: object) -> None:
        try:
            pem = Path(str(options["file"])).read_bytes()
            trusted = trust_authority(
                pem,
                provenance=str(options["provenance"]),
                by=f"console:{getpass.getuser()}",
                now=timezone.now(),
            )
        except (OSError, ParseError) as error:
            raise CommandError(str(error)) from error
        for authority in trusted:
            self.stdout.write(f"{authority.fingerprint}  {authority.name}")
