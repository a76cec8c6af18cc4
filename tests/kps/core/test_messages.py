"""Release requests, released keys, a VM's secrets and its files."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import RSAKey

from kps import errors
from kps.core import jose
from kps.core.bundle import VmDescription, VmState, build_state, build_vm, parse_state, parse_vm
from kps.core.protector import verify_protector
from kps.core.release import Permit, permit, require_policy
from kps.core.release_policy import Circumstances, parse_policy
from kps.core.request import ReleaseRequest, build_request, parse_request, require_fresh, verify_request
from kps.core.secrets import VmSecrets, open_secrets, seal_secrets
from kps.core.wrap import ReleasedKeys, parse_released, wrap
from tests.kps.parties import FABRIC, ID, KEY, NOW, OTHER_FABRIC, OTHER_ID, OWNER, STRANGER, changed, protector

SECRET = b"s" * 32
REQUEST = ReleaseRequest(
    serial="1f" * 16,
    certificate=b"certificate",
    vm="payroll-1",
    nonce=b"n" * 32,
    at=int(NOW.timestamp()),
    untrusted_protector=protector(),
)
SECRETS = VmSecrets(vtpm_key="ab" * 32, disk_passphrase="c2VjcmV0IHBhc3NwaHJhc2Ugb2YgMzIgYnl0ZXM=")


def test_a_request_is_read_back_by_its_secret() -> None:
    unverified = parse_request(build_request(REQUEST, SECRET))
    assert unverified.kid == REQUEST.serial
    assert verify_request(unverified, SECRET) == REQUEST


def test_a_request_under_another_secret_is_refused() -> None:
    with pytest.raises(errors.ReleaseRequestRefused):
        verify_request(parse_request(build_request(REQUEST, SECRET)), b"t" * 32)


def test_a_request_signed_with_a_key_pair_is_refused() -> None:
    token = jose.sign({"at": 1}, STRANGER.signing, kid=REQUEST.serial)
    with pytest.raises(errors.ReleaseRequestRefused):
        verify_request(parse_request(token), SECRET)


@pytest.mark.parametrize(
    "change",
    [
        {"vm": ""},
        {"vm": "../etc"},
        {"vm": "a" * 65},
        {"nonce": b"short"},
        {"nonce": b"n" * 65},
        {"at": -1},
        {"at": True},
        {"certificate": b""},
        {"certificate": b"c" * 8193},
        {"untrusted_protector": []},
    ],
)
def test_a_request_of_another_form_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(errors.MalformedRequest):
        verify_request(parse_request(build_request(replace(REQUEST, **change), SECRET)), SECRET)


@pytest.mark.parametrize("serial", ["", "1F", "xyz", "a" * 41])
def test_a_key_id_that_is_no_serial_is_malformed(serial: str) -> None:
    with pytest.raises(errors.MalformedRequest):
        parse_request(build_request(replace(REQUEST, serial=serial), SECRET))


@given(st.text(max_size=300) | st.none() | st.integers())
def test_whatever_is_read_as_a_request_gives_a_refusal(token: object) -> None:
    with pytest.raises(errors.MalformedRequest):
        parse_request(token)


@pytest.mark.parametrize("seconds", [-60, 0, 60])
def test_a_request_within_a_minute_is_fresh(seconds: int) -> None:
    require_fresh(REQUEST, now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(("seconds", "word"), [(-61, "ahead of"), (61, "behind")])
def test_a_request_from_another_time_is_stale(seconds: int, word: str) -> None:
    with pytest.raises(errors.ReleaseStale, match=word):
        require_fresh(REQUEST, now=NOW + timedelta(seconds=seconds))


# --- the rules ---------------------------------------------------------------------------------------------------


def test_a_named_guardian_that_has_nothing_against_it_may_release() -> None:
    verified = verify_protector(protector())
    fabric = FABRIC.guardian
    assert permit(verified, verified.chain, ours={fabric.fingerprint}, denied=False) == Permit(fabric, fabric)


def test_a_newer_chain_decides_who_may_and_the_wrapping_who_can() -> None:
    verified = verify_protector(protector(FABRIC))
    moved = changed(protector(FABRIC), guardians=(OTHER_FABRIC.guardian,))
    with pytest.raises(errors.GuardianRevoked, match="statement 1"):
        permit(verified, moved, ours={FABRIC.guardian.fingerprint}, denied=False)
    with pytest.raises(errors.ProtectorNotRewrapped):
        permit(verified, moved, ours={OTHER_FABRIC.guardian.fingerprint}, denied=False)
    both = {keys.guardian.fingerprint for keys in (FABRIC, OTHER_FABRIC)}
    assert permit(verified, moved, ours=both, denied=False) == Permit(FABRIC.guardian, OTHER_FABRIC.guardian)


@pytest.mark.parametrize(
    ("ours", "denied", "refusal"),
    [
        ({STRANGER.guardian.fingerprint}, False, errors.GuardianNotNamed),
        (set(), False, errors.GuardianNotNamed),
        ({OWNER.guardian.fingerprint}, False, errors.GuardianNotNamed),
        ({STRANGER.guardian.fingerprint}, True, errors.GuardianNotNamed),
        ({FABRIC.guardian.fingerprint}, True, errors.ProtectorDenied),
    ],
)
def test_a_release_against_the_rules_is_refused(ours: set[str], denied: bool, refusal: type[errors.Refusal]) -> None:
    verified = verify_protector(protector())
    with pytest.raises(refusal):
        permit(verified, verified.chain, ours=ours, denied=denied)


def test_all_that_speaks_against_a_release_is_in_one_refusal() -> None:
    policy = parse_policy({"host_groups": ["payroll"], "minimum_mode": "tpm"})
    here = Circumstances(group="else", mode="hostkey", at=NOW, others=0, approved=False)
    with pytest.raises(errors.HostGroupNotAllowed, match=r"the group payroll.*tpm attestation"):
        require_policy(policy, here)


# --- what a release gives ----------------------------------------------------------------------------------------

RELEASED = ReleasedKeys(ID, "shielded", 1, ingress=KEY, egress=bytes(32))


def test_released_keys_open_with_the_transport_key() -> None:
    transport = rsa.generate_private_key(65537, 2048)
    spki = transport.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pem = transport.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    token = wrap(RELEASED, transport_spki=spki)
    opened = jwe.decrypt_compact(token, RSAKey.import_key(pem), algorithms=["RSA-OAEP-256", "A256GCM"])
    assert parse_released(opened.plaintext or b"") == RELEASED


@given(st.binary(max_size=300))
def test_any_bytes_as_released_keys_give_a_refusal(content: bytes) -> None:
    with pytest.raises(errors.MalformedDocument):
        parse_released(content)


# --- the VM's secrets --------------------------------------------------------------------------------------------


def test_secrets_open_under_their_key_protector_and_roll() -> None:
    token = seal_secrets(SECRETS, KEY, protector_id=ID, roll=3)
    assert open_secrets(token, KEY, protector_id=ID, roll=3) == SECRETS


@pytest.mark.parametrize("how", [{"key": bytes(32)}, {"protector_id": OTHER_ID}, {"roll": 2}, {"roll": 4}], ids=str)
def test_secrets_do_not_open_otherwise(how: dict[str, Any]) -> None:
    token = seal_secrets(SECRETS, KEY, protector_id=ID, roll=3)
    with pytest.raises(errors.SecretsRefused):
        open_secrets(token, **{"key": KEY, "protector_id": ID, "roll": 3, **how})


def test_altered_secrets_do_not_open() -> None:
    head, key, iv, content, tag = seal_secrets(SECRETS, KEY, protector_id=ID, roll=0).split(".")
    flipped = content[:-2] + ("A" if content[-2] != "A" else "B") + content[-1]
    with pytest.raises(errors.SecretsRefused):
        open_secrets(f"{head}.{key}.{iv}.{flipped}.{tag}", KEY, protector_id=ID, roll=0)


@given(st.text(max_size=200) | st.from_regex(r"\A([\w-]{0,40}\.){4}[\w-]{0,40}\Z"))
def test_any_text_as_secrets_gives_a_refusal(token: str) -> None:
    with pytest.raises(errors.Refusal):
        open_secrets(token, KEY, protector_id=ID, roll=0)


def test_secrets_do_not_show_in_a_traceback() -> None:
    assert repr(SECRETS) == "VmSecrets()"
    assert KEY.hex() not in repr(RELEASED)
    assert "ingress" not in repr(RELEASED)


# --- the files ---------------------------------------------------------------------------------------------------

VM = VmDescription(name="payroll", id=str(ID), level="shielded", memory=256)


def test_the_files_of_a_vm_are_read_as_they_were_written() -> None:
    state = VmState(protector(), "token")
    assert parse_vm(build_vm(VM)) == VM
    assert parse_state(build_state(state)) == state


@pytest.mark.parametrize(
    "change",
    [
        {"disk": "../disk"},
        {"disk": "/dev/sda"},
        {"disk": ".."},
        {"name": "a/b"},
        {"name": "-rf"},
        {"level": "open"},
        {"memory": 1},
        {"memory": 1 << 40},
        {"id": "x"},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_description_that_leads_elsewhere_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(errors.MalformedDocument):
        parse_vm(json.dumps(json.loads(build_vm(VM)) | change).encode())


@given(st.binary(max_size=300))
def test_any_bytes_as_files_give_a_refusal(content: bytes) -> None:
    for parse in (parse_vm, parse_state):
        with pytest.raises(errors.MalformedDocument):
            parse(content)
