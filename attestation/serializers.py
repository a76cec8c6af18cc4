"""Shape and size of what machines send: text to bytes, bounded before anything is parsed. Nothing here is saved."""

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.ima import IMA_LIMIT
from attestation.core.possession import KEY_LIMIT, PROOF_LIMIT
from ledger.machine_api import Message

QUOTE_LIMIT = 4 * 1024
PUBLIC_LIMIT = 2 * 1024
SIGNATURE_LIMIT = 2 * 1024
CERTIFICATE_LIMIT = 8 * 1024
SECRET_LIMIT = 64
PCR_VALUE_LIMIT = 64
PCR_NAMES = frozenset(str(pcr) for pcr in range(24))
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?")

BINARY_MESSAGES = {
    "too_large": "This is larger than {limit} bytes.",
    "malformed": "This is not base64url without padding.",
}


@extend_schema_field({"type": "string", "pattern": "^[A-Za-z0-9_-]*$"})
class Base64Bytes(serializers.Field[bytes, str, str, bytes]):
    """base64url without padding (RFC 4648 section 5) of at most `limit` bytes."""

    def __init__(self, *, limit: int, required: bool = True, allow_null: bool = False) -> None:
        super().__init__(required=required, allow_null=allow_null, error_messages={**BINARY_MESSAGES})
        self.limit = limit

    def to_internal_value(self, data: object) -> bytes:
        if not isinstance(data, str):
            self.fail("malformed")
        if len(data) > (self.limit * 4 + 2) // 3:
            self.fail("too_large", limit=self.limit)
        try:
            return from_b64u(data)
        except ValueError:
            self.fail("malformed")

    def to_representation(self, value: bytes) -> str:
        return to_b64u(value)


class PcrValues(serializers.DictField):
    """PCR index (0 to 23, decimal) to its value."""

    child = Base64Bytes(limit=PCR_VALUE_LIMIT)

    def to_internal_value(self, data: object) -> dict[int, bytes]:
        if not isinstance(data, dict) or len(data) > 24 or not data.keys() <= PCR_NAMES:
            raise serializers.ValidationError("This is not an object of at most 24 PCR indices.", code="malformed")
        values: dict[int, bytes] = {}
        errors: dict[str, Any] = {}
        for index, value in data.items():
            try:
                values[int(index)] = self.child.to_internal_value(value)
            except serializers.ValidationError as error:
                errors[index] = error.detail
        if errors:
            raise serializers.ValidationError(errors)
        return values


class EnrolmentSerializer(Message):
    name = serializers.RegexField(NAME.pattern.join(("^", r"\Z")), max_length=64)
    ek_certificate = Base64Bytes(limit=CERTIFICATE_LIMIT, required=False, allow_null=True)
    ek_public = Base64Bytes(limit=PUBLIC_LIMIT)
    ak_public = Base64Bytes(limit=PUBLIC_LIMIT)


class CredentialSerializer(Message):
    id = serializers.UUIDField(source="enrolment")
    credential_blob = Base64Bytes(limit=PUBLIC_LIMIT)
    secret = Base64Bytes(limit=PUBLIC_LIMIT)


class ActivationSerializer(Message):
    secret = Base64Bytes(limit=SECRET_LIMIT)


class EnrolledSerializer(Message):
    attester = serializers.UUIDField(source="id")
    state = serializers.CharField()
    detail = serializers.CharField(source="standing")


class HostKeySerializer(Message):
    name = serializers.RegexField(NAME.pattern.join(("^", r"\Z")), max_length=64)
    host_key = Base64Bytes(limit=KEY_LIMIT)


class KeyOfferSerializer(Message):
    id = serializers.UUIDField(source="enrolment")
    nonce = Base64Bytes(limit=32)


class Proof(serializers.CharField):
    """A compact JWS over the server's nonce (`attestation.core.possession`)."""

    def __init__(self) -> None:
        super().__init__(trim_whitespace=False, max_length=PROOF_LIMIT)


class KeyProofSerializer(Message):
    nonce = Base64Bytes(limit=32)
    proof = Proof()


class PossessionSerializer(Message):
    proof = Proof()


class MembershipSerializer(Message):
    transport_key = Base64Bytes(limit=KEY_LIMIT)
    trial = serializers.BooleanField(required=False, default=False)


class ChallengeRequestSerializer(Message):
    attester = serializers.UUIDField()
    event_log_sha256 = serializers.RegexField(r"^[0-9a-f]{64}\Z", required=False, allow_blank=True, default="")
    boot = serializers.IntegerField(min_value=0, max_value=(1 << 32) - 1, required=False, allow_null=True, default=None)
    trial = serializers.BooleanField(required=False, default=False)


class ChallengeSerializer(Message):
    id = serializers.UUIDField()
    nonce = Base64Bytes(limit=32)
    pcrs = serializers.ListField(child=serializers.IntegerField())
    boot_pcrs = serializers.ListField(child=serializers.IntegerField())
    bank = serializers.CharField()
    send_event_log = serializers.BooleanField()
    send_ima_log = serializers.BooleanField()
    ima_from = serializers.IntegerField()
    trial = serializers.BooleanField()
    expires = serializers.DateTimeField()


class EvidenceSerializer(Message):
    quote = Base64Bytes(limit=QUOTE_LIMIT)
    signature = Base64Bytes(limit=SIGNATURE_LIMIT)
    pcr_values = PcrValues()
    event_log = Base64Bytes(limit=EVENT_LOG_LIMIT, required=False, allow_null=True)
    ima_log = Base64Bytes(limit=IMA_LIMIT, required=False, allow_null=True)
    transport_public = Base64Bytes(limit=PUBLIC_LIMIT)
    transport_certify = Base64Bytes(limit=QUOTE_LIMIT)
    transport_signature = Base64Bytes(limit=SIGNATURE_LIMIT)


class FindingSerializer(Message):
    code = serializers.CharField()
    substatus = serializers.CharField()
    what = serializers.CharField()
    why = serializers.CharField()
    remedy = serializers.CharField()
    verdict = serializers.CharField()
    pcrs = serializers.ListField(child=serializers.IntegerField())


class OutcomeSerializer(Message):
    status = serializers.CharField()
    substatus = serializers.ListField(child=serializers.CharField())
    findings = FindingSerializer(many=True)
    certificate = Base64Bytes(limit=CERTIFICATE_LIMIT, allow_null=True)
    release_secret = serializers.CharField(allow_null=True)
    next_attestation_at = serializers.DateTimeField()


class InfoSerializer(Message):
    fabric = serializers.CharField()
    mode = serializers.CharField()
    certificate_lifetime_seconds = serializers.IntegerField()
    version = serializers.CharField()


class SigningCertificateSerializer(Message):
    der = Base64Bytes(limit=CERTIFICATE_LIMIT)
    active = serializers.BooleanField()
    not_after = serializers.DateTimeField()


class SigningCertificatesSerializer(Message):
    certificates = SigningCertificateSerializer(many=True)
