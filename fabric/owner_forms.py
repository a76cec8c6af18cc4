"""What a tenant's owners fill in about one of their machines, or about shielding data."""

import binascii
from base64 import b64decode, b64encode
from typing import Any

from django import forms

from fabric.forms import PROTECTOR_LIMIT, DecisionForm, StyledForm

APPROVE, DECLINE = "approve", "decline"


class StatementForm(StyledForm):
    """A newer statement that somebody wants to look at first."""

    file = forms.FileField(
        label="Newer statement",
        help_text="The chain that “guardhouse tenant grant”, “revoke”, “level” or “policy” wrote, or a key protector"
        " or state file that begins with it. At most 64 KiB.",
        error_messages={"required": "Choose the statement’s file"},
        widget=forms.FileInput(attrs={"accept": "application/json,.json"}),
    )

    def clean_file(self) -> bytes:
        upload = self.cleaned_data["file"]
        if upload.size > PROTECTOR_LIMIT:
            raise forms.ValidationError("The file is larger than 64 KiB, so it is no owner’s statement")
        return bytes(upload.read())


class TakeStatementForm(StyledForm):
    """The same statement again, after somebody has seen what it changes; in between the page carries it."""

    content = forms.CharField(widget=forms.HiddenInput, max_length=4 * PROTECTOR_LIMIT // 3 + 4)
    seen = forms.IntegerField(widget=forms.HiddenInput, min_value=0)

    @classmethod
    def of(cls, content: bytes, *, seen: int) -> "TakeStatementForm":
        """Return the form that asks whether to let what was just shown hold."""
        return cls(initial={"content": b64encode(content).decode("ascii"), "seen": seen})

    def clean_content(self) -> bytes:
        try:
            return b64decode(self.cleaned_data["content"], validate=True)
        except (binascii.Error, ValueError):
            raise forms.ValidationError("The page did not arrive whole. Choose the file again.") from None


class AnswerForm(DecisionForm):
    """The owner's yes or no to a host that asks for a key; the yes is offered only where a click can give it."""

    def __init__(self, *args: Any, needs_key: bool, **kwargs: Any) -> None:
        choices = [(APPROVE, "Approve this start"), (DECLINE, "Decline")]
        super().__init__(*args, choices=choices[1:] if needs_key else choices, **kwargs)
