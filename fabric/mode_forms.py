"""What people fill in to switch the attestation mode."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django import forms

from fabric.forms import DangerForm, FreshForm

GRACES: Final = {
    0: "At once: every host has to attest anew",
    1: "After one hour",
    8: "After eight hours, which is as long as any certificate lasts",
    24: "After a day",
    168: "After a week",
}


class SwitchForm(FreshForm):
    """How a switch shall come; what it does is on the page around it."""

    grace = forms.TypedChoiceField(
        label="When certificates of the mode in force end",
        choices=list(GRACES.items()),
        coerce=lambda hours: timedelta(hours=int(hours)),
        initial=8,
        help_text="Those that end earlier by themselves are not prolonged.",
    )
    field_order: Sequence[str] = ("grace", "reason", "password")


class WeakeningForm(SwitchForm, DangerForm):
    """A switch to a mode that proves less; its name is typed, so that nobody gets there by a slip."""

    field_order = ("grace", "reason", "name", "password")


def switch_form(*args: Any, weakens: bool, mode: str, **kwargs: Any) -> SwitchForm:
    return WeakeningForm(*args, expected=mode, of="mode", **kwargs) if weakens else SwitchForm(*args, **kwargs)


class DirectoryGroupForm(FreshForm):
    """A group of the directory, by its SID; the name is for people."""

    name = forms.CharField(
        max_length=100,
        help_text="As people call it; nothing looks it up.",
        error_messages={"required": "Give the group a name"},
    )
    sid = forms.CharField(
        label="SID",
        max_length=190,
        help_text="The whole one, such as S-1-5-21-1-2-3-1104: `Get-ADGroup NAME` or `samba-tool group show NAME`.",
        error_messages={"required": "Type the group’s SID"},
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    group = forms.ChoiceField(label="Its hosts belong to", help_text="The group of hosts whose members they become.")
    field_order: Sequence[str] = ("name", "sid", "group", "reason", "password")

    def __init__(self, *args: Any, groups: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer("group", groups, listed=True)
