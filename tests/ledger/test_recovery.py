"""The recovery share and the backup: what they open, and what is refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.custody.errors import MalformedCustody, ShareRefused
from ledger.custody.recovery import BACKUP_LIMIT, lock, new_share, unlock, unwrap_root, wrap_root
from ledger.errors import Refusal

ROOT = bytes(range(32))
SHARE = new_share()
WRAPPED = wrap_root(ROOT, SHARE)
PASSPHRASE = "correct horse battery staple"
BACKUP = lock(b"content", PASSPHRASE)


def test_the_share_opens_the_root_however_it_is_typed() -> None:
    assert [len(group) for group in SHARE.split("-")] == [7] * 8
    confused = SHARE.replace("O", "0").replace("I", "1").replace("B", "8")
    for typed in (SHARE, SHARE.lower(), SHARE.replace("-", " "), SHARE.replace("-", "") + "\n", confused):
        assert unwrap_root(WRAPPED, typed) == ROOT


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param("", id="nothing"),
        pytest.param(SHARE[:-1], id="a character short"),
        pytest.param(SHARE[:55], id="a group short"),
        pytest.param(SHARE + SHARE, id="twice"),
        pytest.param(("A" if SHARE[0] != "A" else "C") + SHARE[1:], id="a wrong character"),
        pytest.param(SHARE[8:16] + SHARE[:8] + SHARE[16:], id="groups swapped"),
        pytest.param("!" * 56, id="no letters"),
        pytest.param("ä" * 56, id="other letters"),
        pytest.param(new_share(), id="another share"),
    ],
)
def test_another_share_opens_nothing(typed: str) -> None:
    with pytest.raises(ShareRefused):
        unwrap_root(WRAPPED, typed)


def test_shares_differ_and_show_nothing_of_the_root() -> None:
    assert new_share() != SHARE
    assert ROOT not in WRAPPED.encode()
    assert base64.b32encode(ROOT).decode()[:20] not in SHARE.replace("-", "")


@pytest.mark.parametrize("wrapped", ["", "x", "a.b.c", WRAPPED[:-4], WRAPPED[:40], BACKUP.decode(), WRAPPED + "."])
def test_what_is_no_wrapped_root_is_refused(wrapped: str) -> None:
    with pytest.raises(Refusal):
        unwrap_root(wrapped, SHARE)


def test_what_the_share_opens_has_to_be_a_root() -> None:
    with pytest.raises(MalformedCustody):
        unwrap_root(wrap_root(b"short", SHARE), SHARE)


def test_a_backup_opens_with_its_passphrase() -> None:
    assert unlock(BACKUP, PASSPHRASE) == b"content"
    assert b"content" not in BACKUP


@pytest.mark.parametrize("passphrase", ["", "correct horse battery stapl", PASSPHRASE.upper(), f"{PASSPHRASE} "])
def test_another_passphrase_opens_nothing(passphrase: str) -> None:
    with pytest.raises(ShareRefused):
        unlock(BACKUP, passphrase)


def test_a_short_passphrase_locks_nothing() -> None:
    with pytest.raises(ShareRefused, match="16 characters"):
        lock(b"content", "fifteen letters")


@pytest.mark.parametrize(
    "backup",
    [
        pytest.param(b"", id="empty"),
        pytest.param(BACKUP[:-10], id="cut short"),
        pytest.param(BACKUP[: len(BACKUP) // 2], id="half"),
        pytest.param(BACKUP[:20], id="the beginning"),
        pytest.param(b"x" + BACKUP, id="something before"),
        pytest.param(BACKUP * 2, id="twice"),
        pytest.param(WRAPPED.encode(), id="a wrapped root"),
        pytest.param(b"A" * (BACKUP_LIMIT + 1), id="too large"),
        pytest.param(b"\xff\xfe", id="no text"),
    ],
)
def test_a_damaged_backup_opens_nothing(backup: bytes) -> None:
    with pytest.raises(Refusal):
        unlock(backup, PASSPHRASE)


@given(st.binary(max_size=200) | st.from_regex(r"\A[\w-]{1,60}(\.[\w-]{0,40}){4}\Z").map(lambda text: text.encode()))
def test_any_bytes_give_a_refusal(backup: bytes) -> None:
    with pytest.raises(Refusal):
        unlock(backup, PASSPHRASE)
