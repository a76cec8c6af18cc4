"""What the portal's API says and is asked about this fabric's guardian keys, message by message."""

from django.urls import reverse
from rest_framework import serializers

from fabric.api.resource import Act, Question
from fabric.api.serializers import STATES, PageSerializer, TwoPersonsSerializer
from fabric.key_queue import PairLine, Waiting
from kps.service import Awaits, RotationProposal
from ledger.machine_api import Message


class PairSerializer(Message):
    """A pair of guardian keys, and how many key protectors depend on it, as far as this fabric has seen them."""

    number = serializers.IntegerField(source="pair.number")
    name = serializers.CharField(source="pair.name", help_text="To disable it is confirmed by this.")
    fingerprint = serializers.CharField(source="pair.fingerprint")
    state = serializers.CharField(source="pair.state", help_text="`prepared`, `primary`, `former` or `disabled`.")
    created_at = serializers.DateTimeField(source="pair.created_at")
    primary_since = serializers.DateTimeField(source="pair.primary_since", allow_null=True)
    primary_until = serializers.DateTimeField(source="pair.primary_until", allow_null=True)
    disabled_at = serializers.DateTimeField(source="pair.disabled_at", allow_null=True)
    rests = serializers.CharField(help_text="What holds its private keys.")
    protectors = serializers.IntegerField()
    page = serializers.SerializerMethodField()

    def get_page(self, line: PairLine) -> str:
        return reverse("guardian-pair", args=[line.pair.number])


class ChangeSerializer(TwoPersonsSerializer):
    """A change of a pair, and what it would have done when it was put forward."""

    page_name = "pair-change"

    pair = serializers.IntegerField(source="pair.number")
    change = serializers.CharField(help_text="`promote` (take into use), `disable` or `enable`.")
    protectors_then = serializers.IntegerField(
        source="impact.protectors", help_text="How many key protectors depended on the pair when it was put forward."
    )
    owners_then = serializers.IntegerField(source="impact.owners")


class ChangeDetailSerializer(ChangeSerializer):
    """One of them, and what it would do now."""

    protectors_now = serializers.IntegerField(help_text="How many key protectors depend on the pair now.")
    owners_now = serializers.IntegerField()
    yours = serializers.BooleanField(help_text="Whether you put it forward, so that somebody else decides it.")


class ChangesQuestion(Question):
    state = serializers.ChoiceField(choices=STATES, required=False)


class ChangesSerializer(PageSerializer):
    results = ChangeSerializer(many=True)


class GuardianKeysSerializer(Message):
    """This fabric's guardian keys, and how far key protectors have moved to the newest of them."""

    in_use = serializers.CharField(help_text="The fingerprint that tenants import and compare.")
    total = serializers.IntegerField(help_text="Key protectors that depend on one of the pairs.")
    moved = serializers.IntegerField(help_text="Those of them that need no old pair any more.")
    left = serializers.IntegerField(help_text="Those that still do.")
    pairs = PairSerializer(many=True, help_text="Every pair there ever was, the newest first.")
    open_changes = ChangeSerializer(many=True, help_text="What waits for a decision.")


class QueueQuestion(Question):
    owner = serializers.RegexField(r"^[0-9a-f]{64}\Z", required=False, help_text="Only this owner’s, by fingerprint.")
    q = serializers.CharField(max_length=100, required=False, help_text="A part of the owner, the id or the VM’s name.")


class QueuedProtectorSerializer(Message):
    """A key protector that depends on a pair, and what has to happen until it does no more."""

    id = serializers.IntegerField(source="of.known.pk")
    protector = serializers.UUIDField(source="of.known.protector_id")
    owner = serializers.CharField(source="of.known.owner_fingerprint")
    owner_name = serializers.CharField(source="of.known.owner_name")
    machine = serializers.CharField(source="machine.name", default=None, allow_null=True)
    tenant = serializers.CharField(source="machine.tenant.slug", default=None, allow_null=True)
    last_released = serializers.DateTimeField(source="of.known.last_released", allow_null=True)
    awaits = serializers.SerializerMethodField(
        help_text="`owner` grants a newer pair; `start`: one is granted and comes with the next start; `itself`: the"
        " owner allows successors, so the next start does it; `nothing`: the owner names this fabric no more."
    )

    def get_awaits(self, row: Waiting) -> Awaits:
        return row.of.awaits


class QueueSerializer(PageSerializer):
    results = QueuedProtectorSerializer(many=True)


class ChangeAct(Act):
    """A change of a pair to be put forward. To disable one is confirmed by its name, as typed on the page."""

    change = serializers.ChoiceField(choices=RotationProposal.Change.values)
    confirm = serializers.CharField(max_length=100, required=False, help_text="The pair’s name, to disable it.")
