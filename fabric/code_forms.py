"""What people fill in about code that may run: lists of files, who may sign them, Windows' code integrity policies."""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from fabric.forms import StyledForm

LIST_LIMIT = 64 << 20
SIGNERS_LIMIT = 256 << 10
CODE_POLICY_LIMIT = 4 << 20


def _within(upload: "UploadedFile[Any] | None", limit: int, said: str) -> bytes:
    """Read an upload from its start, however often it is asked for; a larger one is not read."""
    if upload is None:
        return b""
    if upload.size is None or upload.size > limit:
        raise forms.ValidationError(said)
    upload.seek(0)
    return bytes(upload.read())


class RuntimeForm(StyledForm):
    """A version of a runtime policy, but for its files."""

    name = forms.CharField(
        max_length=100,
        help_text="A policy of that name that is there already gets its next version; the older ones stay.",
        error_messages={"required": "Give the policy a name"},
    )
    excludes = forms.CharField(
        label="Left out",
        help_text="Paths that may hold anything, one a line; a whole folder ends with “/”. Fewer is safer.",
        required=False,
        max_length=200_000,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        strip=False,
    )
    signers = forms.FileField(
        label="Signing certificates",
        help_text="PEM. A file that one of them has signed (IMA signature) may run under any path. At most 256 KiB.",
        required=False,
    )

    def clean_excludes(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["excludes"].splitlines() if line.strip()]

    def clean_signers(self) -> bytes:
        return _within(self.cleaned_data["signers"], SIGNERS_LIMIT, "The certificates are larger than 256 KiB")


class UploadRuntimeForm(RuntimeForm):
    """A runtime policy from a list of files, from signing certificates, or from both."""

    listing = forms.FileField(
        label="List of files",
        help_text="A line for each file: “sha256:”, its digest, two blanks, its path. At most 64 MiB.",
        required=False,
        widget=forms.FileInput(attrs={"accept": "text/plain,.txt"}),
    )
    field_order = ("name", "listing", "excludes", "signers")

    def clean(self) -> dict[str, Any]:
        cleaned = dict(super().clean() or self.cleaned_data)
        if not cleaned.get("listing") and not cleaned.get("signers") and not self.errors:
            raise forms.ValidationError("Choose a list of files, signing certificates, or both")
        return cleaned

    def clean_listing(self) -> bytes:
        upload = self.cleaned_data["listing"]
        self.file_name = "no list" if upload is None else str(upload.name)
        return _within(upload, LIST_LIMIT, "The list is larger than 64 MiB")


class AcceptForm(StyledForm):
    """Further files of the same attestation that are accepted together with the one that was clicked."""

    also = forms.TypedMultipleChoiceField(
        required=False, coerce=int, widget=forms.CheckboxSelectMultiple, label="Accept these files as well"
    )

    def __init__(self, *args: Any, others: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer("also", [(str(number), str(number)) for number in others])

    @property
    def chosen(self) -> frozenset[int]:
        """What is ticked, of what was offered."""
        return frozenset(self.cleaned_data.get("also", ())) if self.is_valid() else frozenset()


class CodePolicyFileForm(StyledForm):
    """A code integrity policy that somebody wants to look at first."""

    file = forms.FileField(
        label="Policy file",
        help_text="The .p7b, .cip or .bin that hosts have in force, signed or not; not the XML. At most 4 MiB.",
        error_messages={"required": "Choose the policy’s file"},
        widget=forms.FileInput(attrs={"accept": ".p7b,.cip,.bin"}),
    )

    def clean_file(self) -> bytes:
        upload = self.cleaned_data["file"]
        self.file_name = str(upload.name)
        return _within(upload, CODE_POLICY_LIMIT, "The file is larger than 4 MiB, so it is no code integrity policy")


class CodePolicyForm(StyledForm):
    """The same policy again, after somebody has seen what it allows; in between the page carries it, nothing else."""

    name = forms.CharField(
        max_length=100,
        help_text="What it is called here, in policies and findings.",
        error_messages={"required": "Give the policy a name"},
    )
    content = forms.CharField(widget=forms.HiddenInput, max_length=4 * CODE_POLICY_LIMIT // 3 + 4)
    file_name = forms.CharField(widget=forms.HiddenInput, max_length=300)

    @classmethod
    def of(cls, content: bytes, *, file_name: str, name: str) -> "CodePolicyForm":
        """Return the form that asks whether to add what was just shown."""
        encoded = b64encode(content).decode("ascii")
        return cls(initial={"name": name[:100], "content": encoded, "file_name": file_name[-300:]})

    def clean_content(self) -> bytes:
        try:
            return b64decode(self.cleaned_data["content"], validate=True)
        except (binascii.Error, ValueError):
            raise forms.ValidationError("The page did not arrive whole. Choose the file again.") from None
