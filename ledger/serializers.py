"""Shape and size of what the log answers and of what witnesses send."""

from typing import Any

from rest_framework import serializers

from ledger.core.tree import MOST_LEAVES

LINE_LIMIT = 1024
Fields = dict[str, serializers.Field[Any, Any, Any, Any]]


class LeafProofSerializer(serializers.Serializer[object]):
    leaf = serializers.CharField(help_text="The leaf's hash, in base64, as all hashes here.")
    index = serializers.IntegerField(help_text="Its place in the log, from 0.")
    path = serializers.ListField(child=serializers.CharField(), help_text="The inclusion proof (RFC 9162, 2.1.3).")
    checkpoint = serializers.CharField(help_text="The signed note whose head the path leads to.")


class GrowthSerializer(serializers.Serializer[object]):
    path = serializers.ListField(child=serializers.CharField(), help_text="The consistency proof (RFC 9162, 2.1.4).")

    def get_fields(self) -> Fields:
        return {"from": _size("The earlier size."), "to": _size("The later size."), **super().get_fields()}


class GrowthQuestionSerializer(serializers.Serializer[object]):
    def get_fields(self) -> Fields:  # `from` is no name that Python takes
        return {"from": _size("The earlier size."), "to": _size("The later size; else the newest.", required=False)}


def _size(text: str, *, required: bool = True) -> serializers.IntegerField:
    return serializers.IntegerField(min_value=1, max_value=MOST_LEAVES, required=required, help_text=text)


class WitnessSerializer(serializers.Serializer[object]):
    name = serializers.CharField()
    vkey = serializers.CharField()


class LogSerializer(serializers.Serializer[object]):
    origin = serializers.CharField(help_text="The log's name, which its checkpoints begin with.")
    vkey = serializers.CharField(help_text="What its signatures are checked with (c2sp.org/signed-note).")
    before = serializers.ListField(
        child=serializers.CharField(), help_text="The keys of the fabric's logs that have ended, the first one first."
    )
    witnesses = WitnessSerializer(many=True)


class CosignatureSerializer(serializers.Serializer[object]):
    size = serializers.IntegerField(min_value=1, max_value=MOST_LEAVES)
    line = serializers.CharField(
        max_length=LINE_LIMIT,
        trim_whitespace=False,
        help_text="The signature line, with the newline that ends it (c2sp.org/tlog-cosignature).",
    )


class KeptSerializer(serializers.Serializer[object]):
    kept = serializers.IntegerField(help_text="The size of the checkpoint under which the cosignature is kept.")
