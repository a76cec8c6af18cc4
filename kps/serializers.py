"""Shape and size of what machines send and get. Nothing here is saved."""

from rest_framework import serializers

from kps.core.chain import CHAIN_LIMIT, MOST_SUCCESSIONS
from kps.core.handback import RETURN_LIMIT
from kps.core.offline import ACCOUNT_LIMIT
from kps.core.owner_message import MESSAGE_LIMIT
from kps.core.request import REQUEST_LIMIT
from ledger.machine_api import Message


class Token(serializers.CharField):
    """A compact JWS of at most so many characters; who made it is not looked at."""

    def __init__(self, limit: int, what: str) -> None:
        super().__init__(trim_whitespace=False, help_text=what)
        self._limit = limit
        self.validators = []  # they look at each character; a JWS is ASCII, and its parser reads it anyway

    def run_validation(self, data: object = serializers.empty) -> object:
        if isinstance(data, str) and len(data) > self._limit:
            raise serializers.ValidationError(f"This is larger than {self._limit} characters.", code="too_large")
        if isinstance(data, str) and not data.isascii():
            raise serializers.ValidationError("This is no compact JWS.", code="invalid")
        return super().run_validation(data)


class MetadataSerializer(Message):
    metadata = serializers.CharField(help_text="This fabric's guardian as a compact JWS, signed by itself.")


class ReleaseRequestSerializer(Message):
    request = Token(
        REQUEST_LIMIT, "A compact JWS (HS256) under the release secret; `kid` is the certificate's serial number."
    )


class ReleaseAnswerSerializer(Message):
    wrapped_keys = serializers.CharField(help_text="A compact JWE to the certificate's transport key.")
    key_protector = serializers.DictField(help_text="The key protector for the next start.")
    receipt = serializers.CharField(help_text="The log's signed promise that this release will be in it.")


class ReturnSerializer(Message):
    message = Token(RETURN_LIMIT, "A compact JWS (HS256) under the release secret: which VM has stopped.")


class ReturnedSerializer(Message):
    returned = serializers.BooleanField(help_text="False when this host held no key of that VM.")


class AccountSerializer(Message):
    message = Token(ACCOUNT_LIMIT, "A compact JWS (HS256) under the release secret: the starts without this fabric.")


class AccountTakenSerializer(Message):
    exceeded = serializers.BooleanField(help_text="True when the host started the VM more often than it may, or later.")


class ChainSerializer(Message):
    chain = serializers.ListField(
        child=Token(CHAIN_LIMIT, "A link of the chain."),
        max_length=1 + MOST_SUCCESSIONS,
        help_text="The owner's statement as a compact JWS, and successions, which are not kept.",
    )


class ChainTakenSerializer(Message):
    serial = serializers.IntegerField(help_text="The serial of the owner's statement that is in force now.")


class QuestionSerializer(Message):
    question = Token(MESSAGE_LIMIT, "A compact JWS (ES256) by the owner.")


class WaitingSerializer(Message):
    id = serializers.UUIDField(source="approval.id")
    vm = serializers.CharField(source="approval.vm")
    host = serializers.CharField(source="approval.host")
    attester = serializers.UUIDField(source="approval.attester_id")
    attestation = serializers.IntegerField(source="approval.attestation_id")
    mode = serializers.CharField(help_text="How the host had attested.")
    policy_version = serializers.IntegerField()
    attested_at = serializers.DateTimeField()
    asked_at = serializers.DateTimeField(source="approval.asked_at")
    asked_last = serializers.DateTimeField(source="approval.asked_last")
    needs_key = serializers.BooleanField(source="approval.needs_key")


class OwnersViewSerializer(Message):
    chain = serializers.ListField(child=serializers.CharField(), source="chain.links")
    denied = serializers.BooleanField(help_text="This fabric has denied all releases under this protector.")
    waiting = WaitingSerializer(many=True, help_text="Releases that wait for the owner's yes.")


class ApprovalSerializer(Message):
    approval = Token(MESSAGE_LIMIT, "A compact JWS (ES256) by the owner.")


class DecidedSerializer(Message):
    id = serializers.UUIDField()
    vm = serializers.CharField()
    host = serializers.CharField()
    expires_at = serializers.DateTimeField(help_text="The host has the key once until then, when it asks again.")
