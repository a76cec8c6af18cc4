"""Keys in a PKCS#11 token: made there, used there, and refused in every other way."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ledger.custody import InsecureFileCustody, TokenCustody
from ledger.custody.errors import CannotMove, CustodyMissing, CustodyUnavailable, TokenGone, WrongPin
from ledger.custody.root import TOKEN, extracted
from ledger.custody.token import ROOT_LABEL, Token, TokenAddress
from tests.tokens import LABEL, MODULE, PIN, SoftHsm, softhsm

ROOT = bytes(range(32))
CURVE = ec.SECP256R1()


@pytest.fixture
def hsm(tmp_path: Path) -> Iterator[SoftHsm]:
    with softhsm(tmp_path) as made:
        yield made


@pytest.fixture
def address(hsm: SoftHsm) -> TokenAddress:
    return TokenAddress(MODULE, LABEL, PIN)


@pytest.fixture
def custody(address: TokenAddress) -> TokenCustody:
    made = TokenCustody(address)
    made.token.make_root(None)
    return made


@pytest.fixture
def outside(address: TokenAddress) -> Any:
    """The token by another session, as somebody with the PIN sees it."""
    import pkcs11

    token = pkcs11.lib(str(MODULE)).get_token(token_label=LABEL)
    try:
        return token.open(rw=True, user_pin=PIN)
    except pkcs11.exceptions.UserAlreadyLoggedIn:
        return token.open(rw=True)


# --- what it does ------------------------------------------------------------------------------------------------


def test_a_key_signs_and_agrees_in_the_token(custody: TokenCustody) -> None:
    sealed, public = custody.generate("signing")
    key = custody.open(sealed, "signing")
    assert key.public_key() == public
    public.verify(key.sign(b"message", ec.ECDSA(hashes.SHA256())), b"message", ec.ECDSA(hashes.SHA256()))
    other = ec.generate_private_key(CURVE)
    assert key.exchange(ec.ECDH(), other.public_key()) == other.exchange(ec.ECDH(), public)


def test_the_jose_and_the_x509_library_take_it_for_a_key(custody: TokenCustody) -> None:
    from datetime import UTC, datetime

    from attestation.core.certificate import build_signer
    from kps.core import jose, wrapped

    signing, encryption = (custody.open(custody.generate(use)[0], use) for use in ("signing", "encryption"))
    token = jose.sign({"a": 1}, signing, kid="x")
    assert jose.holds(jose.parse_jws(token, limit=1000), signing.public_key())
    message = wrapped.encrypt(ROOT, [encryption.public_key(), ec.generate_private_key(CURVE).public_key()])
    assert wrapped.decrypt(message, encryption) == ROOT
    now = datetime(2026, 11, 26, tzinfo=UTC)
    build_signer(signing, number=1, fabric="f", not_before=now, not_after=now)


def test_no_key_can_be_taken_out(custody: TokenCustody, outside: Any) -> None:
    from pkcs11 import Attribute, ObjectClass
    from pkcs11.exceptions import AttributeSensitive

    sealed, _ = custody.generate("signing")
    key = custody.open(sealed, "signing")
    with pytest.raises(CannotMove):
        key.private_numbers()
    with pytest.raises(CannotMove):
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    kept = [*outside.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})]
    kept += outside.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})
    assert len(kept) == 2
    for each in kept:
        assert not each[Attribute.EXTRACTABLE]
        assert each[Attribute.NEVER_EXTRACTABLE]
        assert each[Attribute.ALWAYS_SENSITIVE]
        with pytest.raises(AttributeSensitive):
            each[Attribute.VALUE]


def test_what_is_agreed_on_does_not_stay_in_the_token(custody: TokenCustody, outside: Any) -> None:
    key = custody.open(custody.generate("encryption")[0], "encryption")
    before = len([*outside.get_objects()])
    key.exchange(ec.ECDH(), ec.generate_private_key(CURVE).public_key())
    assert len([*outside.get_objects()]) == before


def test_what_is_sealed_says_which_key_and_nothing_of_it(custody: TokenCustody) -> None:
    sealed, _ = custody.generate("signing")
    assert sealed.startswith(TOKEN)
    assert len(sealed) == len(TOKEN) + 32


def test_what_is_derived_differs_by_purpose_and_context(custody: TokenCustody, address: TokenAddress) -> None:
    again = TokenCustody(address)
    assert custody.derive("release", b"1") == again.derive("release", b"1")
    derived = {custody.derive("release", b"1"), custody.derive("release", b"2"), custody.derive("seal", b"1")}
    assert {len(each) for each in derived} == {32}
    assert len(derived) == 3


def test_a_process_that_starts_anew_opens_it_by_its_settings(custody: TokenCustody, hsm: SoftHsm) -> None:
    sealed, public = custody.generate("signing")
    (hsm.folder / "pin").write_text(PIN + "\n")
    script = (
        "import sys; from ledger.custody import custody; key = custody().open(sys.argv[1].encode(), 'signing');"
        "print(key.public_key().public_numbers().x)"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "fabric.settings",
        "GUARDHOUSE_CUSTODY": "pkcs11",
        "GUARDHOUSE_CUSTODY_PKCS11_MODULE": str(MODULE),
        "GUARDHOUSE_CUSTODY_TOKEN": LABEL,
        "GUARDHOUSE_CUSTODY_PIN_FILE": str(hsm.folder / "pin"),
    }
    command = [sys.executable, "-c", script, sealed.decode()]
    for _ in range(2):  # one after the other, as nodes and restarts are
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"{public.public_numbers().x}\n"
        assert PIN not in done.stderr


def test_a_forked_process_opens_it_too(custody: TokenCustody) -> None:
    sealed, public = custody.generate("signing")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        same = custody.open(sealed, "signing").sign(b"m", ec.ECDSA(hashes.SHA256()))
        os.write(writing, same)
        os._exit(0)
    os.waitpid(child, 0)
    public.verify(os.read(reading, 200), b"m", ec.ECDSA(hashes.SHA256()))
    assert custody.open(sealed, "signing").sign(b"m", ec.ECDSA(hashes.SHA256()))


# --- what it refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pin", ["000000", "", "24681", PIN + "0"])
def test_a_wrong_pin_opens_nothing_and_is_tried_once(address: TokenAddress, pin: str) -> None:
    custody = TokenCustody(replace(address, pin=pin))
    refusals = []
    for _ in range(20):  # SoftHSM counts as every token does
        with pytest.raises(WrongPin) as refusal:
            custody.derive("x", b"")
        refusals.append(refusal.value)
    assert {id(each) for each in refusals} == {id(refusals[0])}
    assert not pin or pin not in str(refusals[0])
    with pytest.raises(CustodyMissing):  # the token is not locked
        TokenCustody(address).derive("x", b"")


def test_the_pin_shows_nowhere(address: TokenAddress) -> None:
    assert PIN not in repr(address)
    assert PIN not in repr(TokenCustody(address).__dict__)


def test_another_token_is_a_sentence(address: TokenAddress) -> None:
    with pytest.raises(TokenGone, match="no token called elsewhere"):
        TokenCustody(replace(address, label="elsewhere")).derive("x", b"")


def test_two_tokens_of_one_label_are_refused(address: TokenAddress, hsm: SoftHsm) -> None:
    hsm.new_token()
    token = Token(address)
    token._lost = True  # so that the library looks at the slots again
    with pytest.raises(TokenGone, match="one label has to mean one token"):
        token.has_root()


@pytest.mark.parametrize("module", ["/nowhere/libpkcs11.so", "/etc/hostname"])
def test_a_library_that_is_none_is_a_sentence(address: TokenAddress, module: str) -> None:
    with pytest.raises(CustodyUnavailable, match="cannot be loaded"):
        TokenCustody(replace(address, module=Path(module))).derive("x", b"")


def test_a_token_without_a_root_makes_none_by_itself(address: TokenAddress) -> None:
    custody = TokenCustody(address)
    with pytest.raises(CustodyMissing, match="custody create"):
        custody.derive("x", b"")
    assert not custody.token.has_root()


def test_two_roots_are_refused(custody: TokenCustody, address: TokenAddress) -> None:
    custody.token.make_root(None)
    with pytest.raises(TokenGone, match="2 root keys"):
        TokenCustody(address).derive("x", b"")


def test_a_key_opens_for_its_own_purpose_and_for_no_other(custody: TokenCustody) -> None:
    sealed, _ = custody.generate("signing")
    with pytest.raises(TokenGone, match="no key “guardhouse encryption”"):
        custody.open(sealed, "encryption")


@pytest.mark.parametrize(
    "sealed",
    [TOKEN, TOKEN + b"00", TOKEN + b"zz" * 16, TOKEN + b"00" * 17, TOKEN + "é".encode() * 16],
    ids=["empty", "short", "no digits", "long", "no ASCII"],
)
def test_what_names_no_key_is_refused(custody: TokenCustody, sealed: bytes) -> None:
    with pytest.raises(InvalidTag):
        custody.open(sealed, "signing")


def test_a_key_that_was_removed_is_a_sentence(custody: TokenCustody) -> None:
    sealed, _ = custody.generate("signing")
    custody.discard(sealed, "signing")
    with pytest.raises(TokenGone, match="no key “guardhouse signing”"):
        custody.open(sealed, "signing")


def test_a_token_that_goes_is_a_sentence_and_one_that_comes_back_is_used(custody: TokenCustody, hsm: SoftHsm) -> None:
    import pkcs11

    sealed, public = custody.generate("signing")
    key = custody.open(sealed, "signing")
    assert key.sign(b"m", ec.ECDSA(hashes.SHA256()))
    shutil.move(hsm.folder / "tokens", hsm.folder / "unplugged")
    (hsm.folder / "tokens").mkdir()
    pkcs11.lib(str(MODULE)).reinitialize()  # SoftHSM notices what became of its folder when it is initialised
    for _ in range(3):
        with pytest.raises(TokenGone):
            key.sign(b"m", ec.ECDSA(hashes.SHA256()))
    shutil.rmtree(hsm.folder / "tokens")
    shutil.move(hsm.folder / "unplugged", hsm.folder / "tokens")
    public.verify(key.sign(b"m", ec.ECDSA(hashes.SHA256())), b"m", ec.ECDSA(hashes.SHA256()))


# python-pkcs11 complains when a search that could not begin is given back.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("used", [True, False])
def test_a_session_that_was_lost_is_opened_anew(custody: TokenCustody, used: bool) -> None:
    import pkcs11

    sealed, public = custody.generate("signing")
    key = custody.open(sealed, "signing")
    if used:
        key.sign(b"m", ec.ECDSA(hashes.SHA256()))
    pkcs11.lib(str(MODULE)).reinitialize()  # ends every session, as a token that restarts does
    public.verify(key.sign(b"m", ec.ECDSA(hashes.SHA256())), b"m", ec.ECDSA(hashes.SHA256()))
    assert custody.derive("x", b"")


# --- what comes from another custody -----------------------------------------------------------------------------


def moved(address: TokenAddress, tmp_path: Path) -> tuple[InsecureFileCustody, TokenCustody]:
    (tmp_path / "custody.key").write_bytes(ROOT)
    custody = TokenCustody(address)
    custody.token.make_root(extracted(ROOT))
    return InsecureFileCustody(tmp_path / "custody.key"), custody


def test_what_a_file_has_sealed_and_derived_is_the_same_in_the_token(address: TokenAddress, tmp_path: Path) -> None:
    before, after = moved(address, tmp_path)
    sealed, public = before.generate("signing")
    assert before.derive("release", b"1") == after.derive("release", b"1")
    assert after.open(sealed, "signing").public_key() == public
    with pytest.raises(InvalidTag):
        after.open(sealed, "encryption")
    assert (before.rests(sealed), after.rests(sealed)) == (True, False)


def test_a_key_that_is_taken_in_stays_in(address: TokenAddress, tmp_path: Path, outside: Any) -> None:
    from pkcs11 import Attribute, ObjectClass

    before, after = moved(address, tmp_path)
    sealed, public = before.generate("signing")
    taken = after.admit(before.open(sealed, "signing"), "signing")
    assert after.admit(before.open(sealed, "signing"), "signing") == taken
    assert after.rests(taken)
    assert not before.rests(taken)
    key = after.open(taken, "signing")
    public.verify(key.sign(b"m", ec.ECDSA(hashes.SHA256())), b"m", ec.ECDSA(hashes.SHA256()))
    (kept,) = outside.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
    assert (kept[Attribute.EXTRACTABLE], kept[Attribute.NEVER_EXTRACTABLE]) == (False, False)
    with pytest.raises(CannotMove):
        after.admit(key, "signing")


def test_the_root_of_another_fabric_opens_nothing(address: TokenAddress, tmp_path: Path) -> None:
    _, after = moved(address, tmp_path)
    (tmp_path / "theirs").write_bytes(bytes(32))
    sealed, _ = InsecureFileCustody(tmp_path / "theirs").generate("signing")
    with pytest.raises(InvalidTag):
        after.open(sealed, "signing")


def test_the_root_has_a_name_that_people_find(custody: TokenCustody, outside: Any) -> None:
    from pkcs11 import Attribute

    assert len([*outside.get_objects({Attribute.LABEL: ROOT_LABEL})]) == 1
