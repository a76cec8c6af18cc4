"""What the API says and is asked about shielding data and orders of machines. Nothing here is saved."""

from rest_framework import serializers

from fabric.api.resource import Act, Question, Strict
from fabric.api.serializers import PageSerializer
from kps.core.bundle import MEMORY
from kps.core.shielding_data import LONGEST_DESCRIPTION
from ledger.machine_api import Message


class TenantsQuestion(Question):
    tenant = serializers.SlugField(required=False, help_text="Only those of this tenant.")


class ShieldingDataSerializer(Message):
    """A version of a file. Its content opens for its owner and for healthy hosts, and not for this service."""

    id = serializers.UUIDField()
    tenant = serializers.SlugField(source="tenant.slug")
    name = serializers.CharField()
    version = serializers.IntegerField()
    description = serializers.CharField()
    protector = serializers.UUIDField(source="protector_id")
    level = serializers.CharField()
    digest = serializers.CharField(help_text="SHA-256 over the file’s first line, in hexadecimal.")
    size = serializers.IntegerField()
    made_at = serializers.DateTimeField(help_text="When its owner made it, as the owner says.")
    asks_for = serializers.ListField(child=serializers.CharField(), help_text="The places that values are put into.")
    added_at = serializers.DateTimeField()
    added_by = serializers.CharField()
    withdrawn_at = serializers.DateTimeField(allow_null=True)


class ShieldingDataPageSerializer(PageSerializer):
    results = ShieldingDataSerializer(many=True)


class ApplicabilitySerializer(Message):
    """Whether machines can be made of a template with this file."""

    template = serializers.UUIDField(source="template.pk")
    name = serializers.CharField(source="template.name")
    version = serializers.CharField(source="template.version")
    applies = serializers.BooleanField()
    against = serializers.ListField(child=serializers.CharField(), help_text="Why not, a sentence for each disk named.")


class UsedBySerializer(Message):
    name = serializers.CharField()
    protector = serializers.UUIDField(source="protector_id")
    added_at = serializers.DateTimeField()


class ShieldingDataDetailSerializer(ShieldingDataSerializer):
    """A file, with the templates on offer that it goes with, and the machines that were made from it."""

    templates = ApplicabilitySerializer(many=True, help_text="Empty once the file is withdrawn.")
    used_by = UsedBySerializer(many=True)


class UploadAct(Strict):
    """A file to be kept as the next version of its name, or in the place of the same file under an older statement."""

    tenant = serializers.SlugField()
    name = serializers.CharField(max_length=64)
    description = serializers.CharField(max_length=LONGEST_DESCRIPTION, required=False, allow_blank=True, default="")
    file = serializers.FileField(help_text="The file that `guardhouse tenant shield new` wrote.")
    password = Act().fields["password"]


class OrderSerializer(Message):
    id = serializers.UUIDField()
    tenant = serializers.SlugField(source="tenant.slug")
    name = serializers.CharField()
    template = serializers.UUIDField(source="template_id")
    shielding_data = serializers.UUIDField(source="shielding_data_id")
    memory = serializers.IntegerField()
    values = serializers.DictField(child=serializers.CharField())
    state = serializers.CharField(help_text="`open`, `made` or `cancelled`.")
    ordered_at = serializers.DateTimeField()
    ordered_by = serializers.CharField()
    machine = serializers.UUIDField(source="machine.protector_id", allow_null=True, default=None)


class OrdersPageSerializer(PageSerializer):
    results = OrderSerializer(many=True)


class OrderAct(Strict):
    """A machine that a tenant wants."""

    shielding_data = serializers.UUIDField()
    template = serializers.UUIDField()
    name = serializers.CharField(max_length=64)
    memory = serializers.IntegerField(min_value=MEMORY[0], max_value=MEMORY[-1], help_text="In MiB.")
    values = serializers.DictField(child=serializers.CharField(max_length=253), required=False, default=dict)
    password = Act().fields["password"]
