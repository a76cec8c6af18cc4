"""What a host sends in Kerberos mode, and what comes back."""

import json
from collections.abc import Callable
from typing import Any, Final

from rest_framework.test import APIClient

from attestation.core.base64url import to_b64u
from attestation.models import KerberosGroup
from tests.attestation.keys import TRANSPORT, spki

PATH: Final = "/attestation/v1/kerberos"
GROUP: Final = "Guarded Hosts"
ASKED: Final = json.dumps({"transport_key": to_b64u(spki(TRANSPORT))}).encode()
Approve = Callable[..., KerberosGroup]


def send(authorization: str | None, body: bytes = ASKED) -> Any:
    headers = {} if authorization is None else {"Authorization": authorization}
    return APIClient().post(PATH, body, content_type="application/json", headers=headers)


def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]
