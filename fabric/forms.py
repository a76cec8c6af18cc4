"""What people fill in. Acts that make or end trust ask for the person's own password again."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from django import forms
from django.contrib.auth import authenticate
from django.http import HttpRequest

PROTECTOR_LIMIT = 64 * 1024
PLATFORM_IDENTIFIER_LIMIT = 1024 * 1024
LEAST_REASON = 10


class StyledForm(forms.Form):
    """A form in the portal's look; Django adds the `aria-` attributes for hints and errors."""

    required_css_class = "required"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            if not isinstance(field.widget, (forms.RadioSelect, forms.CheckboxInput)):
                field.widget.attrs.setdefault("class", "form-control")

    def offer(self, name: str, choices: Iterable[tuple[str, str]], *, listed: bool = False) -> None:
        """Say what can be chosen in a field of this form; `listed` is for those that are drawn as a list."""
        field = self.fields[name]
        if not isinstance(field, forms.ChoiceField):
            raise TypeError(f"{name} is no field to choose in")
        field.choices = list(choices)
        if listed:
            field.widget.attrs["class"] = "form-select"


class ReasonForm(StyledForm):
    """Why someone does something; kept in the ledger for good."""

    reason = forms.CharField(
        min_length=LEAST_REASON,
        max_length=2000,
        help_text="Goes to the audit log for good. At least a sentence.",
        widget=forms.Textarea(attrs={"rows": 3}),
        error_messages={"required": "Write a reason", "min_length": "Write a reason of at least a sentence"},
    )


class FreshForm(ReasonForm):
    """A reason, and the person's own password again: a screen left unlocked decides nothing."""

    password = forms.CharField(
        label="Your password",
        help_text="Asked again for every act like this one.",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        error_messages={"required": "Type your password"},
        strip=False,
    )

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_password(self) -> str:
        """Go through the ordinary backends, so that wrong guesses count towards the lock as they do at sign-in."""
        password = str(self.cleaned_data["password"])
        user = authenticate(self.request, username=self.request.user.get_username(), password=password)
        if user != self.request.user:
            raise forms.ValidationError("This is not your password")
        return ""


class DangerForm(FreshForm):
    """An act on one object, whose name is typed so that it is that one."""

    name = forms.CharField(
        error_messages={"required": "Type the name"}, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    field_order: Sequence[str] = ("reason", "name", "password")

    def __init__(self, *args: Any, expected: str, of: str = "host", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = expected
        self.fields["name"].label = f"Type the {of}’s name"
        self.fields["name"].widget.attrs["placeholder"] = expected

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"]).strip()
        if name != self.expected:
            raise forms.ValidationError("This is not the name")
        return name


class DenyCertificatesForm(DangerForm):
    """All certificates that were issued before a moment, in the time zone that pages show."""

    before = forms.DateTimeField(
        required=False,
        label="Issued before",
        help_text="Empty for all that were issued until now. A moment of the past spares those issued since.",
        error_messages={"invalid": "Give a date and a time"},
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"),
    )
    field_order: Sequence[str] = ("before", "reason", "name", "password")


FILE_ALONE, WITH_MACHINES = "file", "machines"


class DenyKeyForm(DangerForm):
    """A key protector; where machines were made from it, whether they are denied with it."""

    reach = forms.ChoiceField(
        label="What is denied", error_messages={"required": "Choose what is denied"}, widget=forms.RadioSelect
    )
    field_order: Sequence[str] = ("reach", "reason", "name", "password")

    def __init__(self, *args: Any, made: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not made:
            del self.fields["reach"]
            return
        alone, all_of_it = "New machines from it", f"These, and the {made} that are known to be made from it"
        self.offer("reach", [(FILE_ALONE, alone), (WITH_MACHINES, all_of_it)])

    @property
    def with_machines(self) -> bool:
        return self.cleaned_data.get("reach") == WITH_MACHINES


class AnnounceForm(ReasonForm):
    """A host that will come, by the file that Windows writes about it."""

    identifier = forms.FileField(
        label="Platform identifier",
        help_text="The XML file that Get-PlatformIdentifier wrote on the host. At most 1 MiB.",
        error_messages={"required": "Choose the platform identifier’s file"},
        widget=forms.FileInput(attrs={"accept": "application/xml,.xml"}),
    )
    field_order = ("identifier", "reason")

    def clean_identifier(self) -> bytes:
        upload = self.cleaned_data["identifier"]
        if upload.size > PLATFORM_IDENTIFIER_LIMIT:
            raise forms.ValidationError("The file is larger than 1 MiB, so it is no platform identifier")
        return bytes(upload.read())


class HostForm(ReasonForm):
    """A host put forward, into the group whose policy it is to meet."""

    group = forms.ChoiceField(help_text="Whose policy the host has to meet.", required=False)
    field_order = ("group", "reason")

    def __init__(self, *args: Any, groups: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer("group", groups, listed=True)


APPROVE, APPROVE_UNENDORSED, REJECT = "approve", "approve-without-certificate", "reject"


class DecisionForm(FreshForm):
    """One decision, with nothing chosen beforehand."""

    decision = forms.ChoiceField(error_messages={"required": "Choose what to decide"}, widget=forms.RadioSelect)
    field_order = ("decision", "reason", "password")

    def __init__(self, *args: Any, choices: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer("decision", choices)


class MachineForm(StyledForm):
    """A virtual machine, by the key protector that its owner made."""

    name = forms.CharField(max_length=100, error_messages={"required": "Give the machine a name"})
    protector = forms.FileField(
        label="Key protector",
        help_text="The file state.0.json that “guardhouse tenant protect” wrote, or its key protector. At most 64 KiB.",
        error_messages={"required": "Choose the key protector’s file"},
        widget=forms.FileInput(attrs={"accept": "application/json,.json"}),
    )

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"]).strip()
        if not re.fullmatch(r"[\w .-]+", name):
            raise forms.ValidationError("Use letters, digits, spaces, dots and hyphens")
        return name

    def clean_protector(self) -> bytes:
        upload = self.cleaned_data["protector"]
        if upload.size > PROTECTOR_LIMIT:
            raise forms.ValidationError("The file is larger than 64 KiB, so it is no key protector")
        return bytes(upload.read())
