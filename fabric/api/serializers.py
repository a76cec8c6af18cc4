"""What the portal's API says and is asked, message by message. Nothing here is saved."""

from typing import ClassVar, Final

from django.db.models import Model
from django.urls import reverse
from rest_framework import serializers

from attestation.service import Readiness
from fabric.api.resource import Act, Question, Strict
from fabric.forms import APPROVE, APPROVE_UNENDORSED, REJECT
from ledger.machine_api import Message

STATES: Final = ("open", "approved", "rejected")
KINDS: Final = ("host", "baseline", "policy", "mode", "kerberos", "lift")
STANDINGS: Final = ("ready", "unready", "losing")
LONGEST_GRACE_HOURS: Final = 168


class PageSerializer(Message):
    """One page of a list."""

    count = serializers.IntegerField(help_text="How many there are in all.")
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)


# --- the mode ----------------------------------------------------------------------------------------------------


class WordsSerializer(Message):
    """A mode in plain words, as the portal says them."""

    mode = serializers.CharField()
    name = serializers.CharField(source="mode.label")
    known_by = serializers.CharField(help_text="By what a host is known.")
    proves = serializers.CharField()
    does_not_prove = serializers.CharField(source="does_not")


class CountsSerializer(Message):
    """What a switch would do to hosts."""

    ready = serializers.IntegerField()
    unready = serializers.IntegerField()
    losing = serializers.IntegerField(help_text="Hosts that pass now and would not.")
    names = serializers.ListField(child=serializers.CharField(), help_text="The first of those that would lose.")


class ImpactSerializer(Message):
    """What a switch would do, as things stand."""

    hosts = CountsSerializer()
    machines = serializers.IntegerField(help_text="Machines that started last on hosts that would lose.")
    sentences = serializers.ListField(child=serializers.CharField(), help_text="The same for people.")


class OtherModeSerializer(WordsSerializer):
    impact = ImpactSerializer()


class SwitchSerializer(Message):
    """A switch as the history has it."""

    mode = serializers.CharField()
    since = serializers.DateTimeField()
    by = serializers.CharField()
    reason = serializers.CharField()
    before = serializers.CharField(help_text="The mode that it ended; empty for the first.")
    before_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when certificates of the mode before count; null: they were cut off at once."
    )


class ModeSerializer(Message):
    """The mode in force, and where the last switch stands."""

    in_force = WordsSerializer()
    stage = serializers.CharField(
        help_text="`grace` while certificates of the mode before go on counting, then `settled`."
    )
    grace_ends = serializers.DateTimeField(allow_null=True)
    can_roll_back = serializers.BooleanField(help_text="Whether one approver may take the last switch back now.")
    open_proposal = serializers.IntegerField(allow_null=True, help_text="The switch that waits for a decision.")
    others = OtherModeSerializer(many=True)
    history = SwitchSerializer(many=True, help_text="The newest switches, newest first.")


class RehearsalQuestion(Question):
    standing = serializers.ChoiceField(
        choices=STANDINGS, required=False, help_text="`losing`: passes now and would not; `unready` has those as well."
    )
    host = serializers.CharField(max_length=64, required=False, help_text="A part of the host’s name.")


class ReadinessSerializer(Message):
    """Whether a host would get keys in the other mode, and if not, why not and what to do."""

    host = serializers.CharField(source="known.name")
    attester = serializers.UUIDField(source="known.pk")
    group = serializers.CharField(source="known.group_id")
    status_now = serializers.SerializerMethodField(
        help_text="What it showed last in the mode in force; null: not known."
    )
    ready = serializers.BooleanField()
    loses = serializers.BooleanField()
    why = serializers.CharField()
    remedy = serializers.CharField()

    def get_status_now(self, row: Readiness) -> str | None:
        return row.host.status if row.host else None


class RehearsalSerializer(PageSerializer):
    """A page of hosts, and what the switch would do to all of them."""

    mode = WordsSerializer()
    impact = ImpactSerializer()
    results = ReadinessSerializer(many=True)


class SwitchAct(Act):
    """A switch to be put forward. A mode that proves less is confirmed by its name, as typed on the page."""

    grace_hours = serializers.IntegerField(
        min_value=0, max_value=LONGEST_GRACE_HOURS, help_text="0 cuts certificates of the mode before off at once."
    )
    confirm = serializers.CharField(
        max_length=100, required=False, help_text="The name of the mode, if it proves less than the one in force."
    )


class ConfirmedAct(Act):
    """An act on one thing, whose name is given so that it is that one."""

    confirm = serializers.CharField(max_length=100, help_text="The name of what the act is about.")


# --- proposals ---------------------------------------------------------------------------------------------------


class ProposalsQuestion(Question):
    state = serializers.ChoiceField(choices=STATES, required=False)
    kind = serializers.ChoiceField(choices=KINDS, required=False)


class TwoPersonsSerializer(Message):
    """What one person put forward, and what another decided. `page_name` is its page's."""

    page_name: ClassVar[str]

    id = serializers.IntegerField()
    state = serializers.CharField()
    proposed_by = serializers.CharField(source="proposed_by.username")
    proposed_at = serializers.DateTimeField()
    reason = serializers.CharField()
    decided_by = serializers.CharField(source="decided_by.username", default=None, allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    decision_reason = serializers.CharField()
    page = serializers.SerializerMethodField(help_text="The portal’s page, with all that its decision rests on.")

    def get_page(self, row: Model) -> str:
        return reverse(self.page_name, args=[row.pk])


class ProposalSerializer(TwoPersonsSerializer):
    """A proposal about a host, a baseline, a policy or the mode."""

    page_name = "proposal"

    kind = serializers.CharField()
    name = serializers.CharField(source="about.name")
    subject = serializers.CharField(source="about.subject", help_text="As the ledger names it.")
    group = serializers.CharField(source="group_id", allow_null=True)


class ProposalsSerializer(PageSerializer):
    results = ProposalSerializer(many=True)


class PlanSerializer(Message):
    """A switch as it was put forward, and what it would do now."""

    mode = serializers.CharField()
    grace_seconds = serializers.IntegerField()
    weakens = serializers.BooleanField(help_text="Whether it proves less than the mode in force now.")
    then = CountsSerializer(help_text="What it would have done when it was put forward.")
    now = ImpactSerializer(allow_null=True, help_text="What it would do now; null once it is decided.")


class DecidableSerializer(Message):
    """What somebody who decides about a proposal has to know besides."""

    decisions = serializers.ListField(
        child=serializers.CharField(), help_text="What can be decided; empty once it is decided."
    )
    yours = serializers.BooleanField(help_text="Whether you put it forward, so that somebody else decides it.")
    plan = PlanSerializer(allow_null=True, help_text="Of a switch of the mode.")
    sid = serializers.CharField(allow_null=True, help_text="Of a group of the directory.")


class ProposalDetailSerializer(ProposalSerializer, DecidableSerializer):
    """One proposal, with what can be decided about it."""


class DecisionAct(Act):
    decision = serializers.ChoiceField(choices=[APPROVE, APPROVE_UNENDORSED, REJECT])


class VerdictAct(Act):
    """A decision about what can only be approved or rejected."""

    decision = serializers.ChoiceField(choices=[APPROVE, REJECT])


# --- groups of the directory -------------------------------------------------------------------------------------


class DirectoryGroupSerializer(Message):
    id = serializers.UUIDField()
    sid = serializers.CharField()
    name = serializers.CharField()
    state = serializers.CharField()
    group = serializers.CharField(source="group_id", help_text="The group of hosts that its members belong to here.")
    proposed_by = serializers.CharField()
    proposed_at = serializers.DateTimeField()


class DirectoryGroupAct(Act):
    """A group to be put forward."""

    sid = serializers.CharField(max_length=190, help_text="The whole one, as in S-1-5-21-1-2-3-1104.")
    name = serializers.CharField(max_length=100, help_text="As people call it; nothing looks it up.")
    group = serializers.CharField(max_length=40, help_text="The group of hosts that its members belong to here.")


class DirectoryGroupsSerializer(PageSerializer):
    results = DirectoryGroupSerializer(many=True)


class StopSerializer(Message):
    id = serializers.IntegerField()
    scope = serializers.CharField(help_text="fabric, group or host.")
    name = serializers.CharField(help_text="To whom no key is released.")
    group = serializers.CharField(source="group_id", allow_null=True)
    host = serializers.UUIDField(source="attester_id", allow_null=True)
    at = serializers.DateTimeField()
    by = serializers.CharField()
    reason = serializers.CharField()
    lifted_at = serializers.DateTimeField(allow_null=True)
    lifted_by = serializers.CharField()


class StopsSerializer(PageSerializer):
    results = StopSerializer(many=True)


class StopAct(ConfirmedAct):
    """What is to be stopped."""

    scope = serializers.ChoiceField(choices=("fabric", "group", "host"))
    target = serializers.CharField(
        max_length=40, required=False, help_text="The group, or the id of the host; nothing for the whole fabric."
    )


class ExportQuestion(Strict):
    """What an export of the log is to show."""

    since = serializers.IntegerField(
        min_value=0,
        max_value=2**53,
        required=False,
        help_text="The size of the checkpoint that you have kept, so that the export shows how the log went on.",
    )
