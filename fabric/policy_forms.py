"""What people fill in to change a group’s policy: drafts, which count for nothing before others approve them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from django import forms
from django.utils import timezone

from attestation import service as attestation
from fabric.forms import StyledForm

MOMENT = "%Y-%m-%dT%H:%M"
ALL_PCRS = range(24)


class GroupForm(StyledForm):
    """A new group of hosts."""

    name = forms.CharField(max_length=80, error_messages={"required": "Give the group a name"})
    slug = forms.SlugField(
        max_length=40,
        label="Short name",
        help_text="For addresses; letters, digits and hyphens. It stays for good.",
        error_messages={"required": "Give the group a short name"},
    )
    description = forms.CharField(max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2}))
    canary_of = forms.ChoiceField(
        required=False,
        label="Tries changes for",
        help_text="A canary group gets a change first; what it proved is then given to the other group in one act.",
    )

    def __init__(self, *args: Any, groups: Sequence[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer("canary_of", [("", "no other group"), *groups], listed=True)


def moment_field(label: str, **more: Any) -> forms.DateTimeField:
    """A moment as browsers' own picker gives it, in the portal's time zone."""
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MOMENT)
    messages = {"invalid": f"{label}: give a date and a time"}
    return forms.DateTimeField(label=label, required=False, widget=widget, error_messages=messages, **more)


def lines_field(label: str, hint: str) -> forms.CharField:
    widget = forms.Textarea(attrs={"rows": 2})
    return forms.CharField(label=label, help_text=hint, required=False, max_length=20_000, widget=widget, strip=False)


class DraftForm(StyledForm):
    """A group's whole policy: baselines with their time, required checks, accepted values, files and code policies."""

    title = forms.CharField(
        max_length=120, label="What this change is for", error_messages={"required": "Say what this change is for"}
    )
    effective_at = moment_field("In force from", help_text="Empty: as soon as it is approved.")
    firmware_versions = lines_field("Accepted firmware versions", "One a line, as the boot log has it.")
    least_dbx_entries = forms.IntegerField(
        label="Least entries of the revocation list (dbx)", min_value=0, max_value=100_000, required=False
    )
    dump_keys = lines_field("Registered dump encryption keys", "SHA-256 of each key, one a line.")
    runtime = forms.ChoiceField(label="Runtime policy", required=False)
    revision = forms.IntegerField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, draft: Any, candidates: attestation.Candidates, **kwargs: Any) -> None:
        self.draft, self.candidates, self.content = draft, candidates, draft.content()
        kwargs.setdefault("initial", self._initial())
        super().__init__(*args, **kwargs)
        runtime = ((str(policy.pk), str(policy)) for policy in candidates.runtime)
        self.offer("runtime", [("", "none: files are not compared"), *runtime], listed=True)
        entries = {each.id: each for each in self.content.baselines}
        for row in candidates.baselines:
            entry = entries.get(str(row.pk))
            self.fields[f"from-{row.pk}"] = moment_field("From", initial=_local(entry and entry.accepted_from))
            self.fields[f"until-{row.pk}"] = moment_field("Until", initial=_local(entry and entry.accepted_until))
        for name, field in self.fields.items():
            if name.startswith(("from-", "until-")):
                field.widget.attrs["class"] = "form-control"

    def _initial(self) -> dict[str, object]:
        parameters = self.content.parameters
        return {
            "title": self.draft.title,
            "effective_at": _local(self.draft.effective_at),
            "firmware_versions": "\n".join(parameters.firmware_versions),
            "least_dbx_entries": parameters.least_dbx_entries or None,
            "dump_keys": "\n".join(parameters.dump_keys),
            "runtime": self.content.runtime,
            "revision": self.draft.revision,
        }

    @property
    def chosen(self) -> Mapping[str, set[str]]:
        """What is ticked: as it was sent, or as the draft has it."""
        if self.is_bound:
            data: Any = self.data
            return {name: set(data.getlist(name)) for name in ("baselines", "required", "code_policies", "kept")}
        return {
            "baselines": {each.id for each in self.content.baselines},
            "required": set(self.content.required),
            "code_policies": set(self.content.code_policies),
            "kept": {str(number) for number in range(len(self.content.exceptions))},
        }

    def baseline_rows(self) -> list[tuple[Any, bool, forms.BoundField, forms.BoundField]]:
        chosen = self.chosen["baselines"]
        return [
            (row, str(row.pk) in chosen, self[f"from-{row.pk}"], self[f"until-{row.pk}"])
            for row in self.candidates.baselines
        ]

    def check_rows(self) -> list[tuple[Any, bool, str]]:
        """Return each check, whether it is ticked, and the only platform that it makes sense for, if there is one."""
        required = self.chosen["required"]
        return [
            (
                check,
                check.code in required,
                "" if check.linux and check.windows else "Linux" if check.linux else "Windows",
            )
            for check in attestation.CHECKS.values()
        ]

    def code_policy_rows(self) -> list[tuple[Any, bool]]:
        return [(row, str(row.pk) in self.chosen["code_policies"]) for row in self.candidates.code_policies]

    def exception_rows(self) -> list[tuple[int, Any, bool]]:
        kept = self.chosen["kept"]
        return [(number, each, str(number) in kept) for number, each in enumerate(self.content.exceptions)]

    def document(self) -> dict[str, Any]:
        """Return the policy as it was filled in; the core checks it whole."""
        data, chosen = self.cleaned_data, self.chosen
        entries = [
            {
                "id": str(row.pk),
                "from": _iso(data[f"from-{row.pk}"]),
                "until": _iso(data[f"until-{row.pk}"]),
            }
            for row in self.candidates.baselines
            if str(row.pk) in chosen["baselines"]
        ]
        kept = tuple(each for number, each in enumerate(self.content.exceptions) if str(number) in chosen["kept"])
        document = attestation.document_json(replace(self.content, exceptions=kept))
        return document | {
            "baselines": entries,
            "required": sorted(chosen["required"]),
            "parameters": {
                "firmware_versions": _lines(data["firmware_versions"]),
                "least_dbx_entries": data["least_dbx_entries"] or 0,
                "dump_keys": [each.lower() for each in _lines(data["dump_keys"])],
            },
            "runtime": data["runtime"],
            "code_policies": sorted(chosen["code_policies"]),
        }


class ExceptionForm(StyledForm):
    """Trouble that the one who writes this answers for, until a moment."""

    check = forms.ChoiceField(label="Of", error_messages={"required": "Choose what the exception is from"})
    accepts_fail = forms.ChoiceField(
        label="Accepts",
        choices=[("", "only that it is not proved"), ("yes", "also that it fails")],
        required=False,
    )
    pcrs = forms.CharField(
        label="PCRs", required=False, help_text="For the baseline: which PCRs may differ, such as 1, 5.", max_length=100
    )
    hosts = forms.MultipleChoiceField(
        label="Hosts", required=False, help_text="None chosen: the whole group.", widget=forms.SelectMultiple
    )
    until = moment_field("Until")
    why = forms.CharField(
        label="Reason",
        min_length=10,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 2}),
        error_messages={"required": "Write a reason", "min_length": "Write a reason of at least a sentence"},
    )
    revision = forms.IntegerField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, draft: Any, hosts: Sequence[tuple[str, str]], **kwargs: Any) -> None:
        kwargs.setdefault("initial", {"revision": draft.revision})
        super().__init__(*args, **kwargs)
        checks = [(check.code, check.title) for check in attestation.CHECKS.values()]
        self.offer("check", [("baseline", "The baseline matches"), *checks])
        self.offer("hosts", hosts)
        for name in ("check", "accepts_fail", "hosts"):
            self.fields[name].widget.attrs["class"] = "form-select"
        self.fields["until"].required = True
        self.fields["until"].error_messages["required"] = "Say until when the exception holds"

    def clean_pcrs(self) -> list[int]:
        words = self.cleaned_data["pcrs"].replace(",", " ").split()
        if not all(word.isdigit() and int(word) in ALL_PCRS for word in words):
            raise forms.ValidationError("Name PCRs by their numbers, 0 to 23")
        return sorted({int(word) for word in words})

    def clean_until(self) -> datetime:
        until: datetime = self.cleaned_data["until"]
        if until <= timezone.now():
            raise forms.ValidationError("The moment has passed")
        return until

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("check") == "baseline" and not data.get("pcrs") and "pcrs" not in self.errors:
            self.add_error("pcrs", "Name the PCRs that may differ")
        return data

    def entry(self, owner: str) -> dict[str, Any]:
        data = self.cleaned_data
        return {
            "check": data["check"],
            "until": data["until"].isoformat(),
            "owner": owner,
            "reason": data["why"],
            "hosts": sorted(data["hosts"]),
            "pcrs": data["pcrs"],
            "accepts_fail": data["accepts_fail"] == "yes",
        }


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _local(moment: datetime | None) -> datetime | None:
    return None if moment is None else timezone.localtime(moment)
