"""An order: what a host needs to know of a new machine beside its template and its shielding data.

A JSON file that the portal writes and a host's operator takes along. Nobody has signed it, and nobody needs to: a host
verifies template and shielding data by themselves, and puts in no value that is not of its kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kps.core import jose
from kps.core.bundle import MEMORY, NAME
from kps.core.substitution import MOST_NAMES
from kps.errors import MalformedDocument

ORDER_LIMIT: Final = 64 * 1024
_TYPE: Final = "guardhouse-machine-order/v1"
_LONGEST_VALUE: Final = 253


@dataclass(frozen=True, slots=True)
class Order:
    """The digests say which template (its volume's root) and which shielding data are meant, in hexadecimal."""

    name: str
    memory: int
    template: str
    shielding_data: str
    values: Mapping[str, str]


def build_order(order: Order) -> bytes:
    document = {
        "type": _TYPE,
        "name": order.name,
        "memory": order.memory,
        "template": order.template,
        "shielding_data": order.shielding_data,
        "values": dict(order.values),
    }
    content = jose.canonical(document) + b"\n"
    parse_order(content)
    return content


def parse_order(content: bytes) -> Order:
    """Read an order. Raises `MalformedDocument` and nothing else; whether the values are of their kinds comes later."""
    names = {"type", "name", "memory", "template", "shielding_data", "values"}
    fields = jose.members(jose.read_json(content, limit=ORDER_LIMIT), names, what="An order")
    if fields["type"] != _TYPE:
        raise MalformedDocument("This is not an order of a version known here.")
    if not isinstance(fields["name"], str) or not NAME.fullmatch(fields["name"]):
        raise MalformedDocument("A VM's name is 1 to 64 letters, digits, dots, dashes.")
    if jose.whole_number(fields["memory"], what="The memory of a VM", most=MEMORY[-1]) not in MEMORY:
        raise MalformedDocument(f"A VM has at least {MEMORY[0]} MiB of memory.")
    return Order(
        fields["name"],
        fields["memory"],
        _digest(fields["template"]),
        _digest(fields["shielding_data"]),
        parse_values(fields["values"]),
    )


def parse_values(value: object) -> dict[str, str]:
    """Read the values of places: short lines by name."""
    if not isinstance(value, dict) or len(value) > MOST_NAMES:
        raise MalformedDocument(f"An order has at most {MOST_NAMES} values.")
    return {
        jose.text(name, what="The name of a place"): jose.text(each, what="A value", longest=_LONGEST_VALUE)
        for name, each in value.items()
    }


def _digest(value: object) -> str:
    text = jose.text(value, what="A digest")
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise MalformedDocument("A digest is 64 hexadecimal digits.")
    return text
