"""Recovery shares: any so many of them are the owner, fewer are nothing, and what is wrong with one is said."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from itertools import combinations
from random import Random
from typing import Any

import pytest
import shamir_mnemonic as slip39
from bip39_slip39.slip39 import master_secret_from_mnemonics
from shamir_mnemonic.wordlist import WORDLIST

from cli.owner_secret import OwnerSecret
from cli.recovery import (
    WORDS,
    RecoveryRefused,
    Share,
    ShareMalformed,
    build_share,
    combine,
    parse_share,
    recover,
    split,
)

SECRET, OTHERS_SECRET = bytes(range(32)), bytes(range(1, 33))
OWNER, OTHER = OwnerSecret("Kontor Nord", SECRET), OwnerSecret("somebody", OTHERS_SECRET)
FINGERPRINT = OWNER.keys.guardian.fingerprint
SHARES = split(OWNER, shares=5, needed=3)
MADE = date(2026, 11, 26)


def sheet(share: Share) -> str:
    return build_share(share, of=5, made=MADE).decode()


def words_of(share: Share, change: Callable[[list[str]], Any] = lambda words: None) -> bytes:
    words = list(share.words)
    change(words)
    return " ".join(words).encode()


def decoded(share: Share) -> slip39.Share:
    return slip39.Share.from_mnemonic(" ".join(share.words))


def forged(share: Share, **changes: Any) -> Share:
    """A share with another content and a checksum that holds."""
    return Share(tuple(replace(decoded(share), **changes).words()))


def bare(share: Share) -> Share:
    return Share(share.words)


# --- what recovers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shares", "needed"), [(2, 2), (3, 2), (5, 3), (6, 5), (16, 2), (16, 16)])
def test_any_so_many_shares_are_the_owner(shares: int, needed: int) -> None:
    made = split(OWNER, shares=shares, needed=needed)
    assert [share.number for share in made] == list(range(1, shares + 1))
    for some in list(combinations(made, needed))[:20]:
        assert combine(some[::-1]) == SECRET


def test_more_shares_than_needed_recover_too() -> None:
    assert combine(SHARES) == SECRET


def test_another_program_recovers_the_same_secret() -> None:
    """SLIP-39 by somebody else's hand: papers outlive programs."""
    for some in combinations(SHARES, 3):
        assert master_secret_from_mnemonics([" ".join(share.words) for share in some]) == SECRET


def test_the_owner_comes_back_with_its_fingerprint() -> None:
    assert recover(SHARES[1:4], name="Kontor Nord", fingerprint=FINGERPRINT) == OWNER


def test_each_split_is_a_set_of_its_own() -> None:
    sets = {split(OWNER, shares=2, needed=2)[0].set_name for _ in range(8)}
    assert len(sets) >= 7  # of 32,768 names


@pytest.mark.parametrize(("shares", "needed"), [(1, 1), (5, 1), (2, 3), (17, 3), (0, 0)])
def test_a_split_that_protects_nothing_is_not_made(shares: int, needed: int) -> None:
    with pytest.raises(ValueError, match="at least 2 are needed"):
        split(OWNER, shares=shares, needed=needed)


# --- sheets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", SHARES, ids=lambda share: str(share.number))
def test_a_sheet_is_read_as_it_was_written(share: Share) -> None:
    assert parse_share(build_share(share, of=5, made=MADE)) == share


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param(lambda text: " ".join(re.findall(r"[a-z]+", text.split("\n\n")[1])), id="words on one line"),
        pytest.param(str.upper, id="capitals"),
        pytest.param(lambda text: re.sub(r"(\d+) ", r"\1. ", text.split("\n\n")[1]), id="numbers with a dot"),
        pytest.param(lambda text: "\r\n".join(text.split("\n\n")[1].split()), id="one word a line"),
    ],
)
def test_a_sheet_that_a_person_has_typed_is_read(typed: Callable[[str], str]) -> None:
    text = typed(sheet(SHARES[0]))
    if "OWNER" in text:  # labels are as they are printed
        text = text.split("\n\n")[1]
    assert parse_share(text.encode()).words == SHARES[0].words


def test_a_sheet_says_whose_it_is_and_what_it_needs() -> None:
    head = sheet(SHARES[1]).split("\n\n")[0].replace(" ", "")
    for said in ("2of5", "any3", "KontorNord", FINGERPRINT, "2026-11-26"):
        assert said in head
    assert all(len(line) <= 100 for line in sheet(SHARES[1]).splitlines())


def test_a_share_does_not_show_itself() -> None:
    assert not set(SHARES[0].words) & set(re.findall("[a-z]+", repr(SHARES[0])))


# --- what is wrong with one sheet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(WORDS))
def test_any_changed_word_is_noticed(at: int) -> None:
    for word in {*WORDLIST[at::30]} - {SHARES[0].words[at]}:
        changed = list(SHARES[0].words)
        changed[at] = word
        with pytest.raises(ShareMalformed, match="checksum"):
            parse_share(" ".join(changed).encode())


@pytest.mark.parametrize("seed", range(20))
def test_two_and_three_changed_words_are_noticed(seed: int) -> None:
    """RS1024 finds any three wrong words, not only most of them."""
    random = Random(seed)  # noqa: S311  (mistakes that can be repeated)

    def change(words: list[str]) -> None:
        for at in random.sample(range(WORDS), random.choice((2, 3))):
            words[at] = WORDLIST[(WORDLIST.index(words[at]) + random.randrange(1, 1024)) % 1024]

    with pytest.raises(ShareMalformed, match="checksum"):
        parse_share(words_of(SHARES[0], change))


@pytest.mark.parametrize("at", range(WORDS - 1))
def test_words_in_the_wrong_order_are_noticed(at: int) -> None:
    words = list(SHARES[0].words)
    words[at : at + 2] = reversed(words[at : at + 2])
    if tuple(words) != SHARES[0].words:
        with pytest.raises(ShareMalformed, match="two have changed places"):
            parse_share(" ".join(words).encode())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(words_of(SHARES[0], lambda words: words.pop()), "33 words, this one has 32", id="a word missing"),
        pytest.param(words_of(SHARES[0], lambda w: w.append(w[3])), "33 words, this one has 34", id="a word too many"),
        pytest.param(words_of(SHARES[0], lambda w: w.__setitem__(6, "zebra")), "Word 7 ", id="not in the list"),
        pytest.param(words_of(SHARES[0], lambda w: w.__setitem__(6, "k\u0131ng")), "Word 7 ", id="no letter of ours"),
        pytest.param(b"", "33 words, this one has 0", id="empty"),
        pytest.param(b"\xff\xfe", "not text", id="no text"),
        pytest.param(b"a" * 5000, "larger than", id="too large"),
        pytest.param(b"Owner: x\nOwner: y\n", "or one twice", id="a label twice"),
        pytest.param(b"Passphrase: x\n", "another label", id="an unknown label"),
        pytest.param(b"Owner:\n", "printable", id="no name"),
        pytest.param(b"Owner: \x1b[2J\n", "printable", id="a name that would clear the screen"),
        pytest.param(b"Fingerprint: 0109\n", "64 hexadecimal", id="a short fingerprint"),
    ],
)
def test_a_sheet_with_a_mistake_is_refused_with_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(ShareMalformed, match=sentence):
        parse_share(content)


def test_no_sentence_repeats_a_word() -> None:
    """What is wrong with a word is almost the word: two shares with one mistake get one sentence."""
    for change in (lambda words: words.__setitem__(20, "zebra"), lambda words: words.reverse(), list.pop):
        sentences = set()
        for share in SHARES[:2]:
            with pytest.raises(ShareMalformed) as refused:
                parse_share(words_of(share, change))
            sentences.add(str(refused.value))
        assert len(sentences) == 1
        assert "zebra" not in sentences.pop()


def test_shares_of_other_programs_are_refused_before_their_work_is_done() -> None:
    """An iteration exponent of 15 asks for 327 million rounds."""
    others = [
        forged(SHARES[0], iteration_exponent=15),
        forged(SHARES[0], extendable=False),
        forged(SHARES[0], group_count=2),
        forged(SHARES[0], group_index=1),
        forged(SHARES[0], group_count=2, group_threshold=2),
        forged(SHARES[0], member_threshold=1),
    ]
    for share in others:
        with pytest.raises(ShareMalformed, match="another program"):
            parse_share(words_of(share))


def test_a_share_of_a_shorter_secret_is_refused() -> None:
    [[mnemonic, _]] = slip39.generate_mnemonics(1, [(2, 2)], bytes(16))
    with pytest.raises(ShareMalformed, match="33 words, this one has 20"):
        parse_share(mnemonic.encode())


# --- what is wrong with several ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2])
def test_too_few_shares_are_refused(number: int) -> None:
    with pytest.raises(RecoveryRefused, match="Too few shares"):
        combine(SHARES[:number])


def test_one_share_counts_once() -> None:
    with pytest.raises(RecoveryRefused, match="3 different ones of one set are needed, 2 are here"):
        combine([SHARES[0], SHARES[1], SHARES[0], bare(SHARES[1])])


def test_shares_of_two_sets_do_not_mix() -> None:
    later = split(OWNER, shares=5, needed=3)
    with pytest.raises(RecoveryRefused, match=f"different sets.*“{later[0].set_name}”"):
        combine([*SHARES[:2], later[2]])
    assert combine(later[:3]) == SECRET


def test_a_set_with_another_threshold_is_another_set() -> None:
    with pytest.raises(RecoveryRefused, match="different sets"):
        combine([*SHARES[:2], forged(SHARES[2], member_threshold=2)])


def test_a_share_with_another_owner_s_fingerprint_on_it_is_refused() -> None:
    other = split(OTHER, shares=3, needed=2)
    with pytest.raises(RecoveryRefused, match="Share 2 is of another owner"):
        recover([SHARES[0], other[1]], name="x", fingerprint=FINGERPRINT)


def test_good_shares_of_another_owner_are_refused() -> None:
    other = [bare(share) for share in split(OTHER, shares=3, needed=2)]
    with pytest.raises(RecoveryRefused, match=f"lead to the owner {OTHER.keys.guardian.fingerprint}"):
        recover(other, name="x", fingerprint=FINGERPRINT)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_forged_share_is_noticed_though_its_checksum_holds(at: int) -> None:
    shares = list(SHARES[:3])
    value = bytearray(decoded(shares[at]).value)
    value[5] ^= 1
    shares[at] = forged(shares[at], value=bytes(value))
    with pytest.raises(RecoveryRefused, match="do not fit together"):
        combine(shares)


def test_a_share_of_another_owner_under_the_same_set_name_is_noticed() -> None:
    stranger = forged(split(OTHER, shares=5, needed=3)[2], identifier=decoded(SHARES[0]).identifier)
    with pytest.raises(RecoveryRefused, match="do not fit together"):
        combine([*SHARES[:2], stranger])


def test_a_forged_share_is_noticed_among_more_than_are_needed() -> None:
    extra = forged(SHARES[4], value=bytes(32))
    with pytest.raises(RecoveryRefused, match=r"do not fit together|Share 5 does not fit"):
        combine([*SHARES[:4], extra])


def test_two_different_shares_of_one_number_are_refused() -> None:
    with pytest.raises(RecoveryRefused, match="two shares 2"):
        combine([*SHARES[:3], forged(SHARES[1], value=bytes(32))])


def test_a_set_that_agrees_on_another_secret_is_not_this_owner() -> None:
    """Who forges a whole set forges its digest too: only the fingerprint tells."""
    ems = slip39.EncryptedMasterSecret.from_master_secret(OTHERS_SECRET, b"", decoded(SHARES[0]).identifier, True, 0)
    [shares] = slip39.split_ems(1, [(3, 5)], ems)
    false = [Share(tuple(share.words()), "Kontor Nord", FINGERPRINT) for share in shares]
    assert false[0].set_name == SHARES[0].set_name
    with pytest.raises(RecoveryRefused, match="and not to"):
        recover(false, name="Kontor Nord", fingerprint=FINGERPRINT)
