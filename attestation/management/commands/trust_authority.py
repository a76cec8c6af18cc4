"""`manage.py trust_authority FILE --provenance TEXT`: trust the CA certificates of TPM makers."""

import getpass
from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from attestation.core.certificate_reader import plain
from attestation.errors import ParseError
from attestation.service import trust_authority


class Command(BaseCommand):
    help = (
        "Trust the CA certificates of TPM makers in a file: PEM, DER, PKCS #7 (.p7b), ZIP, or a cabinet such as"
        " Microsoft's TrustedTpm.cab. One line for each says what became of it, and why."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--provenance", required=True, help="where the certificates come from, kept for good")

    def handle(self, *args: object, **options: object) -> None:
        path = Path(str(options["file"]))
        try:
            assessed = trust_authority(
                path.read_bytes(),
                provenance=str(options["provenance"]),
                by=f"console:{getpass.getuser()}",
                now=timezone.now(),
                file_name=path.name,
            )
        except (OSError, ParseError) as error:
            raise CommandError(str(error)) from error
        for each in assessed:
            known_by = each.read.fingerprint if each.read else each.path
            words = (each.outcome, known_by, each.maker, each.title, each.sentence)
            self.stdout.write("  ".join(plain(word, limit=500) for word in words if word))
        if not any(each.read and each.outcome != "refused" for each in assessed):
            raise CommandError("Nothing in this file was added.")
