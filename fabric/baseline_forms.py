"""What people fill in about baselines: hosts and PCRs to capture, files to upload, digests to accept, how long."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django import forms
from django.utils import timezone

from attestation import service as attestation
from attestation.core.amendment import Amendment
from attestation.core.reference import BY_EVENTS, PLATFORMS
from fabric.forms import FreshForm, ReasonForm

LOG_LIMIT = 1 << 20
VALUES_LIMIT = 64 << 10
MOST_DIGESTS = 64
SHOWN_PLACES = 100
DIGITS = 64
FOR_GOOD, FOR_A_TIME = "good", "time"
QUIET = {"autocomplete": "off", "spellcheck": "false"}


HINTS = {
    4: "Authenticode digests of boot programs, which may be there or not.",
    9: "Digests of files, as sha256sum prints them, which may be there or not.",
}


def digests_in(text: str) -> tuple[bytes, ...]:
    """Read SHA-256 digests in hexadecimal, apart by white space or commas; a name of the hash before one is ignored."""
    words = [word.lower().removeprefix("sha256:").removeprefix("0x") for word in text.replace(",", " ").split()]
    if len(words) > MOST_DIGESTS:
        raise forms.ValidationError(f"At most {MOST_DIGESTS} digests at a time")
    for word in words:
        if len(word) != DIGITS or word.strip("0123456789abcdef"):
            raise forms.ValidationError(f"“{word[:70]}” is no SHA-256 digest of {DIGITS} hexadecimal digits")
    return tuple(dict.fromkeys(map(bytes.fromhex, words)))


class DigestsField(forms.CharField):
    """Digests, one a line."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.Textarea(attrs={"rows": 2, "placeholder": "SHA-256, one a line", **QUIET}))
        super().__init__(required=False, max_length=8000, **kwargs)

    def clean(self, value: Any) -> tuple[bytes, ...]:
        return digests_in(super().clean(value))


class NamedForm(ReasonForm):
    """A baseline that gets a name."""

    name = forms.CharField(
        max_length=100,
        help_text="A later baseline of the same name takes this one’s place once it is approved.",
        error_messages={"required": "Give the baseline a name"},
    )


def _eventful(pcrs: Iterable[int]) -> list[tuple[str, str]]:
    return [(str(pcr), f"PCR {pcr}, {attestation.meaning_of(pcr)}") for pcr in sorted(pcrs)]


class PinnedField(forms.TypedMultipleChoiceField):
    """Which PCRs are pinned by events; the others are pinned by value."""

    def __init__(self, pcrs: Iterable[int], **kwargs: Any) -> None:
        super().__init__(
            label="Pin by events",
            help_text="Every event has to be an accepted one, so an update adds digests. The other PCRs: by value.",
            required=False,
            coerce=int,
            choices=_eventful(pcrs),
            widget=forms.CheckboxSelectMultiple(),
            **kwargs,
        )


class GroupField(forms.ChoiceField):
    """The group of hosts that something is for."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=_groups, error_messages={"required": "Choose a group"}, **kwargs)
        self.widget.attrs["class"] = "form-select"


def _groups() -> list[tuple[str, str]]:
    return [(group.slug, group.name) for group in attestation.groups()]


class CaptureForm(NamedForm):
    """What one host booted, or several, as a baseline of a group."""

    others = forms.CharField(
        label="Other hosts",
        required=False,
        max_length=2000,
        help_text="Names, apart by spaces. The baseline then accepts what any of them booted: their newest evidence.",
        widget=forms.TextInput(attrs=QUIET),
    )
    group = GroupField(label="For the group", required=False)
    by_events = PinnedField((4, 5, 8, 9))
    field_order = ("name", "others", "group", "by_events", "reason")

    def clean_others(self) -> tuple[int, ...]:
        names = str(self.cleaned_data["others"]).replace(",", " ").split()
        found = attestation.newest_of(names)
        unknown = [name for name in names if name not in found]
        if unknown:
            raise forms.ValidationError(f"No approved host with verified evidence is called {', '.join(unknown)[:200]}")
        return tuple(found.values())


class UploadForm(NamedForm):
    """A boot log with the PCR values that it leads to. The reason is asked for when the draft is put forward."""

    event_log = forms.FileField(
        label="Boot log",
        help_text="binary_bios_measurements of a Linux host, or a Windows .tcglog. At most 1 MiB.",
        error_messages={"required": "Choose the boot log’s file", "empty": "The boot log is empty"},
    )
    pcr_values = forms.FileField(
        label="PCR values",
        help_text="What “tpm2_pcrread sha256” printed on that host, in the same boot.",
        error_messages={"required": "Choose the file with the PCR values", "empty": "The file of values is empty"},
    )
    platform = forms.ChoiceField(
        choices=[(each, each.capitalize()) for each in PLATFORMS],
        help_text="By whose rules the rest of a host’s evidence is read.",
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    group = GroupField(label="For the group")
    by_events = PinnedField(BY_EVENTS)
    field_order = ("name", "event_log", "pcr_values", "platform", "group", "by_events")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["reason"]

    def clean_event_log(self) -> bytes:
        return _content(self.cleaned_data["event_log"], LOG_LIMIT, "1 MiB, so it is no boot log")

    def clean_pcr_values(self) -> bytes:
        return _content(self.cleaned_data["pcr_values"], VALUES_LIMIT, "64 KiB, so it is no list of PCR values")


def _content(upload: Any, limit: int, said: str) -> bytes:
    if upload.size > limit:
        raise forms.ValidationError(f"The file is larger than {said}")
    return bytes(upload.read())


class TimedForm(ReasonForm):
    """A change that counts for good, in the old baseline's place, or beside it for a time."""

    when = forms.ChoiceField(
        label="How long",
        choices=[
            (FOR_GOOD, "For good: the amended baseline takes the old one’s place"),
            (FOR_A_TIME, "From one moment to another: a change of the group’s policy has both"),
        ],
        error_messages={"required": "Choose how long it counts"},
        widget=forms.RadioSelect,
    )
    begins = forms.DateTimeField(label="From", required=False, help_text="Empty: from the decision on.")
    ends = forms.DateTimeField(label="Until", required=False, help_text="After this moment only the old one counts.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("begins", "ends"):
            self.fields[name].widget = forms.DateTimeInput(
                attrs={"type": "datetime-local", "class": "form-control"}, format="%Y-%m-%dT%H:%M"
            )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("when") != FOR_A_TIME or self.errors:
            return cleaned
        begins, ends, now = cleaned.get("begins"), cleaned.get("ends"), timezone.now()
        if ends is None:
            self.add_error("ends", "Say until when it counts")
        elif ends <= max(begins or now, now):
            self.add_error("ends", "This moment is past, or not after the one before it")
        return cleaned

    @property
    def time(self) -> tuple[datetime | None, datetime] | None:
        """From when until when; None for good."""
        if self.cleaned_data["when"] == FOR_GOOD:
            return None
        return self.cleaned_data["begins"], self.cleaned_data["ends"]


class AmendForm(TimedForm):
    """What a baseline is to accept more, PCR by PCR: a field for each value, place and absence."""

    def __init__(self, *args: Any, rules: Sequence[attestation.ReadableRule], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rules = rules
        for rule in rules:
            self.fields[f"accept-{rule.pcr}"] = DigestsField(
                label="Accept anywhere too" if rule.by_events else "Accept these values too",
                help_text=HINTS.get(rule.pcr, "") if rule.by_events else "Of the whole PCR.",
            )
            self.fields[f"accept-{rule.pcr}"].widget.attrs["class"] = "form-control mono"
            for event in placed(rule):
                self.fields[f"instead-{rule.pcr}-{event.digest}"] = DigestsField(
                    label=f"In the place of {event.words.name or event.digest[:8]}",
                    widget=forms.TextInput(attrs={"class": "form-control mono", "placeholder": "SHA-256", **QUIET}),
                )
                self.fields[f"absent-{rule.pcr}-{event.digest}"] = forms.BooleanField(
                    label="May be absent", required=False
                )

    def groups(self) -> list[dict[str, Any]]:
        """The fields as the page shows them: of each PCR, and of each of its placed events."""
        return [
            {
                "rule": rule,
                "accept": self[f"accept-{rule.pcr}"],
                "filled": any(self[name].value() for name in self.fields if name.split("-")[1:2] == [str(rule.pcr)]),
                "events": [
                    {
                        "event": event,
                        "instead": self[f"instead-{rule.pcr}-{event.digest}"],
                        "absent": self[f"absent-{rule.pcr}-{event.digest}"],
                    }
                    for event in placed(rule)
                ],
            }
            for rule in self.rules
        ]

    def amendments(self) -> Mapping[int, Amendment]:
        """Return what was filled in, of the PCRs where something was."""
        found = {rule.pcr: self._of(rule) for rule in self.rules}
        return {pcr: amendment for pcr, amendment in found.items() if amendment}

    def _of(self, rule: attestation.ReadableRule) -> Amendment:
        filled, events = self.cleaned_data, placed(rule)
        instead = [
            (bytes.fromhex(event.digest), new)
            for event in events
            for new in filled[f"instead-{rule.pcr}-{event.digest}"]
        ]
        absent = [bytes.fromhex(event.digest) for event in events if filled[f"absent-{rule.pcr}-{event.digest}"]]
        return Amendment(filled[f"accept-{rule.pcr}"], tuple(instead), tuple(absent))


def placed(rule: attestation.ReadableRule) -> list[attestation.AcceptedEvent]:
    """Return the events of a rule's places, each once; of endless ones the first."""
    unique = {event.digest: event for place in rule.places for event in place}
    return list(unique.values())[:SHOWN_PLACES]


class VouchForm(FreshForm):
    """What a digest is: a package with its version, as whoever looked it up says."""

    package = forms.CharField(
        label="Package and version",
        max_length=200,
        help_text="Such as linux-image-amd64 6.12.60-1. People read it beside the digest; no verdict rests on it.",
        error_messages={"required": "Name the package"},
        widget=forms.TextInput(attrs=QUIET),
    )
    field_order = ("package", "reason", "password")
