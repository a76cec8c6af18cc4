"""What a tenant's people fill in about shielding data, and about new machines made from it."""

from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.core.files.uploadedfile import UploadedFile

from fabric.forms import StyledForm
from kps.core.bundle import MEMORY, NAME
from kps.core.shielding_data import LONGEST_DESCRIPTION, SHIELDING_DATA_LIMIT
from kps.core.substitution import kind_in_words, require_values
from kps.errors import SubstitutionRefused

_PLACE: Final = "place-"
LARGEST: Final = f"{SHIELDING_DATA_LIMIT / 1024 / 1024:.1f} MiB"


class ShieldingDataForm(StyledForm):
    """A shielding data file, and what it is called here."""

    file = forms.FileField(
        label="Shielding data file",
        help_text=f"The file that “guardhouse tenant shield new” wrote. At most {LARGEST}.",
        error_messages={"required": "Choose the file"},
    )
    name = forms.CharField(
        max_length=64,
        help_text="A name that is here already gets a new version.",
        error_messages={"required": "Give it a name"},
    )
    description = forms.CharField(
        max_length=LONGEST_DESCRIPTION,
        required=False,
        help_text="What it is for, for your colleagues.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )

    def clean_file(self) -> "UploadedFile[Any]":
        """Return the upload as it came: it is read piece by piece, and never all at once."""
        upload: UploadedFile[Any] = self.cleaned_data["file"]
        if upload.size is None or upload.size > SHIELDING_DATA_LIMIT:
            raise forms.ValidationError(f"The file is larger than {LARGEST}, so it is no shielding data")
        return upload


class OrderForm(StyledForm):
    """A new machine: its name, its memory, and a value for each place that its shielding data asks for."""

    name = forms.CharField(max_length=64, error_messages={"required": "Give the VM a name"})
    memory = forms.IntegerField(
        label="Memory in MiB",
        min_value=MEMORY[0],
        max_value=MEMORY[-1],
        initial=2048,
        error_messages={"required": "Say how much memory it gets"},
    )

    def __init__(self, *args: Any, asks_for: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asks_for = tuple(asks_for)
        for place in self.asks_for:
            words = kind_in_words(place)
            self.fields[_PLACE + place] = forms.CharField(
                label=place,
                max_length=253,
                help_text=f"{words[0].upper()}{words[1:]}.",
                error_messages={"required": f"Give a value for {place}"},
                widget=forms.TextInput(attrs={"class": "form-control", "autocomplete": "off"}),
            )

    @property
    def values(self) -> dict[str, str]:
        return {place: str(self.cleaned_data[_PLACE + place]) for place in self.asks_for}

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"]).strip()
        if not NAME.fullmatch(name):
            raise forms.ValidationError("Use letters, digits, dots and dashes")
        return name

    def clean(self) -> dict[str, Any]:
        for place in self.asks_for:
            value = self.cleaned_data.get(_PLACE + place)
            try:
                require_values(frozenset({place}), {place: value or ""})
            except SubstitutionRefused:
                if value:
                    self.add_error(_PLACE + place, f"This is not {kind_in_words(place)}")
        return self.cleaned_data
