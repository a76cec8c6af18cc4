"""Shape and size of what machines send and get. Nothing here is saved."""

from rest_framework import serializers

from kps.core.request import REQUEST_LIMIT


class MetadataSerializer(serializers.Serializer[object]):
    metadata = serializers.CharField(help_text="This fabric's guardian as a compact JWS, signed by itself.")


class ReleaseRequestSerializer(serializers.Serializer[object]):
    request = serializers.CharField(
        trim_whitespace=False,
        help_text="A compact JWS (HS256) under the release secret; `kid` is the certificate's serial number.",
    )

    def validate_request(self, value: str) -> str:
        if len(value) > REQUEST_LIMIT:
            raise serializers.ValidationError(f"This is larger than {REQUEST_LIMIT} characters.", code="too_large")
        return value


class ReleaseAnswerSerializer(serializers.Serializer[object]):
    wrapped_keys = serializers.CharField(help_text="A compact JWE to the certificate's transport key.")
    key_protector = serializers.DictField(help_text="The key protector for the next start.")
    receipt = serializers.CharField(help_text="The log's signed promise that this release will be in it.")
