"""What people fill in to make a token for the API."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from django import forms

from fabric.forms import FreshForm

LIFETIMES: Final = {1: "A day", 7: "A week", 30: "30 days", 90: "90 days, which is as long as any token lasts"}


class TokenForm(FreshForm):
    """What a token is called and how long it lasts; the reason says what it is for."""

    name = forms.CharField(
        max_length=60,
        help_text="So that you know it again, such as the program that will have it.",
        error_messages={"required": "Give the token a name"},
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    lifetime = forms.TypedChoiceField(
        label="It ends after",
        choices=list(LIFETIMES.items()),
        coerce=lambda days: timedelta(days=int(days)),
        initial=30,
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    field_order: Sequence[str] = ("name", "lifetime", "reason", "password")
