"""What the portal's API says and is asked about denials and what they reach, message by message."""

from typing import Final

from django.urls import reverse
from rest_framework import serializers

from fabric.api.resource import Question, Strict
from fabric.api.serializers import STATES, ConfirmedAct, PageSerializer, TwoPersonsSerializer
from fabric.known_keys import KnownKey
from ledger.machine_api import Message

SCOPES: Final = ("fabric", "group", "host")


class StopQuestion(Strict):
    """What might be stopped."""

    scope = serializers.ChoiceField(choices=SCOPES)
    target = serializers.CharField(
        max_length=40, required=False, help_text="The group, or the id of the host; nothing for the whole fabric."
    )


class StopImpactSerializer(Message):
    """What a stop would reach and what not: a VM that runs goes on, and no offline allowance is taken back."""

    hosts = serializers.IntegerField(help_text="Approved hosts that would get no key.")
    certified = serializers.IntegerField(help_text="Those of them that hold a certificate.")
    running = serializers.IntegerField(help_text="VMs that run there as far as this fabric knows. They go on.")
    owners = serializers.IntegerField(help_text="Of how many owners.")
    offline = serializers.IntegerField(help_text="VMs that can be started there without this fabric all the same.")
    offline_until = serializers.DateTimeField(allow_null=True, help_text="Until when the last of them can.")


class CertificatesQuestion(Strict):
    """Which certificates might be denied."""

    before = serializers.DateTimeField(required=False, help_text="Without it: all that were issued until now.")


class CertificatesImpactSerializer(Message):
    """What it would mean to deny certificates by when they were issued."""

    before = serializers.DateTimeField()
    hosts = serializers.IntegerField(help_text="Hosts that would have no certificate until they attest again.")
    running = serializers.IntegerField(help_text="VMs that run there as far as this fabric knows. They go on.")
    owners = serializers.IntegerField(help_text="Of how many owners.")


class CertificatesAct(ConfirmedAct):
    """Certificates to be denied, confirmed by the fabric's name."""

    before = serializers.DateTimeField(required=False, help_text="Without it: all that were issued until now.")


class ProtectorsQuestion(Question):
    q = serializers.CharField(max_length=100, required=False, help_text="A part of the owner, the id or a name.")
    denied = serializers.BooleanField(required=False, default=False, help_text="Only those that somebody denies.")


class ProtectorSerializer(Message):
    """A key protector that this fabric has seen, and what a denial of it would reach."""

    id = serializers.IntegerField(source="record.pk")
    name = serializers.CharField(
        help_text="What is registered for it, or how its id begins; an act on it is confirmed by this."
    )
    protector = serializers.UUIDField(source="record.protector_id")
    owner = serializers.CharField(source="record.owner_fingerprint")
    owner_name = serializers.CharField(source="record.owner_name")
    level = serializers.CharField(source="record.level")
    registered = serializers.SerializerMethodField(help_text="`machine`, `shielding-data`, or nothing.")
    called = serializers.CharField(help_text="What the host calls it that made it or got its key last; may be empty.")
    tenant = serializers.SerializerMethodField()
    first_seen = serializers.DateTimeField(source="record.first_seen")
    last_released = serializers.DateTimeField(source="record.last_released", allow_null=True)
    holding = serializers.ListField(
        child=serializers.CharField(),
        help_text="Hosts that hold its key, as far as this fabric knows. A denial does not reach a VM that runs there.",
    )
    offline_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when a host may start it without this fabric; a denial does not reach that."
    )
    denied_at = serializers.DateTimeField(source="record.denied_at", allow_null=True)
    denied_by = serializers.CharField(source="record.denied_by")
    denied_reason = serializers.CharField(source="record.denied_reason")
    owner_denied_at = serializers.DateTimeField(
        source="record.owner_denied_at", allow_null=True, help_text="By the owner’s own people, who alone take it back."
    )
    page = serializers.SerializerMethodField()

    def get_registered(self, key: KnownKey) -> str | None:
        if key.about is None:
            return None
        return "shielding-data" if key.is_file else "machine"

    def get_tenant(self, key: KnownKey) -> str | None:
        return key.about.tenant.slug if key.about else None

    def get_page(self, key: KnownKey) -> str:
        return reverse("protector", args=[key.record.pk])


class ProtectorDetailSerializer(ProtectorSerializer):
    """One of them."""

    machines = serializers.IntegerField(help_text="How many that are known here were made from it.")
    open_lift = serializers.IntegerField(
        allow_null=True, help_text="What waits for a decision: that it is allowed again."
    )


class ProtectorsSerializer(PageSerializer):
    results = ProtectorSerializer(many=True)


class DenialAct(ConfirmedAct):
    """A key to be denied, confirmed by its name."""

    with_machines = serializers.BooleanField(
        required=False, default=False, help_text="Of shielding data: deny what was made from it as well."
    )


class LiftsQuestion(Question):
    state = serializers.ChoiceField(choices=STATES, required=False)


class LiftSerializer(TwoPersonsSerializer):
    """That a denied key is allowed again."""

    page_name = "denial-lift"

    protector_record = serializers.IntegerField(source="record_id", help_text="The `id` of the key protector here.")
    protector = serializers.UUIDField(source="record.protector_id")
    owner = serializers.CharField(source="record.owner_fingerprint")


class LiftsSerializer(PageSerializer):
    results = LiftSerializer(many=True)
