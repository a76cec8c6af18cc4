"""What people fill in about makers of TPMs: files of CA certificates, and acts on what counts."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.http import HttpRequest

from attestation.core.bundle import BUNDLE_LIMIT
from fabric.forms import DangerForm, FreshForm, StyledForm

LEAST_DIGITS = 8


class BundleFileForm(StyledForm):
    """A file of CA certificates that somebody wants to look into first."""

    file = forms.FileField(
        label="File of CA certificates",
        help_text="PEM, DER, PKCS #7 (.p7b), ZIP, or a cabinet such as Microsoft’s TrustedTpm.cab. At most 8 MiB.",
        error_messages={"required": "Choose a file", "empty": "The file is empty"},
        widget=forms.FileInput(attrs={"accept": ".pem,.crt,.cer,.der,.p7b,.p7c,.zip,.cab"}),
    )

    def clean_file(self) -> bytes:
        """Read one byte more than a bundle may have; that it has too many is for the service to say."""
        upload = self.cleaned_data["file"]
        self.file_name = str(upload.name)
        upload.seek(0)  # a refused act is shown by reading the form again
        return bytes(upload.read(BUNDLE_LIMIT + 1))


class ImportForm(FreshForm):
    """Whose authorities of a file are trusted, and where the file was got."""

    makers = forms.MultipleChoiceField(
        label="Trust these makers",
        widget=forms.CheckboxSelectMultiple,
        error_messages={
            "required": "Choose at least one maker",
            "invalid_choice": "The file has nothing to add of one of these makers",
        },
    )
    field_order = ("makers", "reason", "password")

    def __init__(self, *args: Any, request: HttpRequest, makers: Sequence[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, request=request, **kwargs)
        self.offer("makers", makers)
        reason = self.fields["reason"]
        reason.label = "Where it was got, and how you know"
        reason.help_text = "Kept as the provenance of every certificate, and in the audit log, for good."
        reason.error_messages |= {"required": "Write where the file was got", "min_length": "Write at least a sentence"}


class AuthorityForm(DangerForm):
    """An act on one certificate. Names of authorities repeat and are hard to type, digests are not."""

    def __init__(self, *args: Any, fingerprint: str, **kwargs: Any) -> None:
        super().__init__(*args, expected=fingerprint[:LEAST_DIGITS], of="authority", **kwargs)
        self.fields["name"].label = f"Type the first {LEAST_DIGITS} digits of its fingerprint"
        self.fields["name"].error_messages["required"] = "Type the first digits of the fingerprint"

    def clean_name(self) -> str:
        digits = str(self.cleaned_data["name"]).strip().lower()
        if digits != self.expected:
            raise forms.ValidationError("These are not its digits")
        return digits
