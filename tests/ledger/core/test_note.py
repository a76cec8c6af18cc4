"""Notes as c2sp.org writes them: its own example holds, and whatever is not exactly that is refused."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.checkpoint import (
    Checkpoint,
    Receipt,
    parse_checkpoint,
    parse_receipt,
    sign_checkpoint,
    sign_receipt,
    verify_checkpoint,
    verify_receipt,
)
from ledger.core.note import (
    Kind,
    UnverifiedNote,
    cosigned_at,
    parse_note,
    parse_signature,
    parse_vkey,
    sign_cosignature,
    sign_note,
    verifier_key,
    verify_cosignature,
    verify_note,
)
from ledger.errors import LogRefused, NoteSignature, ParseError

# The example of c2sp.org/signed-note, with the key under which it is published.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
LOG, OTHER_LOG, WITNESS = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
NAME, WITNESS_NAME = "guardhouse/lab", "witness.example/1"
KEY, WITNESS_KEY = verifier_key(NAME, Kind.ED25519, LOG), verifier_key(WITNESS_NAME, Kind.COSIGNATURE, WITNESS)
HEAD = Checkpoint(NAME, 7, b"r" * 32)
NOTE = sign_checkpoint(HEAD, LOG)
PROMISE = Receipt(NAME, b"l" * 32, 1_795_000_060)
COSIGNED = replace(
    NOTE, signatures=(*NOTE.signatures, sign_cosignature(HEAD.text, WITNESS_NAME, WITNESS, at=1_795_000_000))
)


def test_the_example_of_the_specification_holds() -> None:
    assert verify_note(parse_note(EXAMPLE), parse_vkey(EXAMPLE_KEY)) == "This is an example message.\n"
    assert str(parse_note(EXAMPLE)) == EXAMPLE
    assert str(parse_vkey(EXAMPLE_KEY)) == EXAMPLE_KEY


@pytest.mark.parametrize("position", range(0, len(EXAMPLE), 7))
def test_no_letter_of_a_signed_note_can_be_changed(position: int) -> None:
    altered = EXAMPLE[:position] + ("x" if EXAMPLE[position] != "x" else "y") + EXAMPLE[position + 1 :]
    with pytest.raises((NoteSignature, ParseError)):
        verify_note(parse_note(altered), parse_vkey(EXAMPLE_KEY))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("text\n", id="no signature"),
        pytest.param("text\n\n", id="an empty line and no signature"),
        pytest.param("\n\n\u2014 a AAAAAAA=\n", id="no text"),
        pytest.param("text\n\n\u2014 a AAAAAAA=", id="no newline at the end"),
        pytest.param("text\n\n- a AAAAAAA=\n", id="another dash"),
        pytest.param("text\n\n\u2014 a b AAAAAAA=\n", id="a space in the name"),
        pytest.param("text\n\n\u2014 a+b AAAAAAA=\n", id="a plus in the name"),
        pytest.param("text\n\n\u2014  AAAAAAA=\n", id="no name"),
        pytest.param("text\n\n\u2014 a AAAAAAB=\n", id="base64 with loose bits"),
        pytest.param("text\n\n\u2014 a AAAAAA\n", id="base64 without padding"),
        pytest.param("text\n\n\u2014 a AAAA\n", id="too short for a key id"),
        pytest.param("te\txt\n\n\u2014 a AAAAAAA=\n", id="a control character"),
        pytest.param("te\ud800xt\n\n\u2014 a AAAAAAA=\n", id="half a letter"),
        pytest.param("text\n\n" + "\u2014 a AAAAAAA=\n" * 65, id="too many signatures"),
        pytest.param("x" * 200_000, id="too long"),
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse_note(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b",
        "a b+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/fob+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3Q==",
        "x" * 600 + "++",
    ],
    ids=["nothing", "two parts", "space", "other id", "other name", "kind nobody uses here", "short key", "too long"],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse_vkey(text)


def test_a_note_that_somebody_else_has_signed_is_signed_by_nobody() -> None:
    with pytest.raises(NoteSignature, match="has not signed"):
        verify_note(sign_note("text\n", NAME, OTHER_LOG), KEY)
    with pytest.raises(NoteSignature, match="has not signed"):
        verify_note(sign_note("text\n", "guardhouse/other", LOG), KEY)


def test_signatures_of_keys_that_nobody_knows_are_passed_over() -> None:
    other = sign_note(HEAD.text, "elsewhere", OTHER_LOG).signatures
    long = parse_signature(f"\u2014 post-quantum {'A' * 6000}\n")
    note = UnverifiedNote(NOTE.untrusted_text, (*other, long, *NOTE.signatures))
    assert verify_checkpoint(parse_note(str(note)), KEY) == HEAD


def test_a_false_signature_under_a_known_name_spoils_the_note() -> None:
    false = replace(NOTE.signatures[0], untrusted=bytes(64))
    with pytest.raises(NoteSignature, match="not one under this note"):
        verify_note(UnverifiedNote(NOTE.untrusted_text, (*NOTE.signatures, false)), KEY)


def test_a_checkpoint_is_read_back_as_it_was_signed() -> None:
    assert verify_checkpoint(parse_note(str(NOTE)), KEY) == HEAD
    assert NOTE.untrusted_text == "guardhouse/lab\n7\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\n"


def test_a_checkpoint_of_another_log_counts_for_nothing_under_this_ones_key() -> None:
    foreign = sign_note(replace(HEAD, origin="guardhouse/other").text, NAME, LOG)
    with pytest.raises(LogRefused, match="of another log"):
        verify_checkpoint(foreign, KEY)
    with pytest.raises(LogRefused, match="of another log"):
        verify_receipt(sign_note(replace(PROMISE, origin="guardhouse/other").text, NAME, LOG), KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n7\n",
        "\n7\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\n",
        "a\n07\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\n",
        "a\n-7\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\n",
        "a\n\u0667\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\n",
        "a\n9007199254740993\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\n",
        "a\n7\ncnJy\n",
        "a\n7\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=",
        "a\n7\ncnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=\nextension\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse_checkpoint(text)


def test_a_receipt_is_no_checkpoint_and_a_checkpoint_no_receipt() -> None:
    receipt = sign_receipt(PROMISE, LOG)
    assert verify_receipt(parse_note(str(receipt)), KEY) == PROMISE
    with pytest.raises(ParseError):
        verify_checkpoint(receipt, KEY)
    with pytest.raises(ParseError):
        parse_receipt(HEAD.text)


def test_a_witness_is_believed_for_the_very_text_and_second_that_it_has_signed() -> None:
    (_, line) = COSIGNED.signatures
    assert cosigned_at(parse_note(str(COSIGNED)), WITNESS_KEY) == 1_795_000_000
    assert cosigned_at(NOTE, WITNESS_KEY) is None
    later = replace(line, untrusted=(1_795_000_001).to_bytes(8, "big") + line.untrusted[8:])
    for text, changed in [(HEAD.text, later), (replace(HEAD, size=8).text, line)]:
        with pytest.raises(NoteSignature, match="has not cosigned"):
            verify_cosignature(text, changed, WITNESS_KEY)


def test_a_cosignature_is_no_signature_of_a_log_and_the_other_way_round() -> None:
    as_log = replace(WITNESS_KEY, kind=Kind.ED25519)
    with pytest.raises(NoteSignature):
        verify_note(COSIGNED, as_log)
    with pytest.raises(NoteSignature):
        verify_note(COSIGNED, WITNESS_KEY)
    with pytest.raises(NoteSignature):
        verify_cosignature(HEAD.text, NOTE.signatures[0], KEY)
