"""This fabric's own guardian: its key pairs in custody, its cards, and its keys opened for a moment.

One pair is in use. Those before it go on opening key protectors until people disable them; one that is prepared opens
them too, so that owners can grant it before anything depends on it.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache, partial

from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max, QuerySet

from kps.core import jose
from kps.core.guardian import MOST_PAIRS, Guardian, GuardianKeys, build_metadata, sign_succession
from kps.models import GuardianPair, ServiceKey
from ledger.custody import HeldKey, custody

Purpose = ServiceKey.Purpose
State = GuardianPair.State


def metadata(*, now: datetime) -> str:
    """Return this fabric's card, signed by itself: what tenants import, after they compared its fingerprint.

    With it come the other pairs that open key protectors, and how the one in use was reached.
    """
    current = pair_in_use(now=now)
    others = [pair for pair in pairs() if pair.state in (State.PREPARED, State.FORMER)]
    prepared = next((pair for pair in others if pair.state == State.PREPARED), None)
    line = _line_to(prepared or current)
    return build_metadata(
        opened(current),
        now=now,
        others=[card(pair) for pair in others[:MOST_PAIRS]],
        successions=[pair.succession for pair in line if pair.succession][-MOST_PAIRS:],
    )


def guardian_fingerprint(*, now: datetime) -> str:
    """Return what a tenant compares with the metadata it has imported."""
    return pair_in_use(now=now).fingerprint


def our_guardian(*, now: datetime) -> Guardian:
    """Return the card of the pair in use."""
    return card(pair_in_use(now=now))


def newest_named(guardians: Iterable[Guardian], *, among: Iterable[GuardianPair] | None = None) -> str:
    """Return the fingerprint of the newest of our pairs that these name and that is not disabled, or nothing."""
    named = {guardian.fingerprint for guardian in guardians}
    enabled = (pair.fingerprint for pair in among or pairs() if pair.state != State.DISABLED)
    return next((fingerprint for fingerprint in enabled if fingerprint in named), "")


def pairs() -> QuerySet[GuardianPair]:
    """Return every pair there ever was, the newest first."""
    return GuardianPair.objects.select_related("signing", "encryption", "before")


def pair_in_use(*, now: datetime) -> GuardianPair:
    """Return the pair in use, made when it is first asked for. Nodes may race: the first wins and all use its keys."""
    found = pairs().filter(state=State.PRIMARY).first()
    if found is not None:
        return found
    made = _new_pair(State.PRIMARY, now=now)
    try:
        return _saved(made)
    except IntegrityError:
        return pairs().get(state=State.PRIMARY)


def prepare_successor(*, now: datetime) -> GuardianPair:
    """Make a pair for later, named by the one in use. Raises `IntegrityError` when one is being prepared already."""
    return _saved(_new_pair(State.PREPARED, before=pair_in_use(now=now), now=now))


def held_keys() -> list[HeldKey]:
    """Return every guardian key, locked for whoever moves them; disabled ones can be enabled again."""
    return [
        HeldKey(f"guardian {row}", row.custody_purpose, bytes(row.sealed), partial(_keep, row))
        for row in ServiceKey.objects.select_for_update()
    ]


def _keep(row: ServiceKey, sealed: bytes) -> None:
    ServiceKey.objects.filter(pk=row.pk).update(sealed=sealed)


def card(pair: GuardianPair) -> Guardian:
    return Guardian(
        settings.FABRIC_NAME, jose.parse_public_key(pair.signing.public), jose.parse_public_key(pair.encryption.public)
    )


def opened(pair: GuardianPair) -> GuardianKeys:
    """Return the pair's private keys, opened by custody."""
    return GuardianKeys(settings.FABRIC_NAME, _private(pair.signing), _private(pair.encryption))


def _new_pair(state: GuardianPair.State, *, now: datetime, before: GuardianPair | None = None) -> GuardianPair:
    """Return a pair that nobody has saved yet. Keys are made outside of a transaction: a token takes its time."""
    number = (GuardianPair.objects.aggregate(last=Max("number"))["last"] or 0) + 1
    pair = GuardianPair(number=number, state=state, before=before, created_at=now)
    pair.signing, pair.encryption = _new_key(Purpose.SIGNING, now), _new_key(Purpose.ENCRYPTION, now)
    pair.fingerprint = card(pair).fingerprint
    if before is not None:
        pair.succession = sign_succession(opened(before), card(pair), now=now)
    if state == State.PRIMARY:
        pair.primary_since = now
    return pair


def _new_key(purpose: ServiceKey.Purpose, now: datetime) -> ServiceKey:
    key = ServiceKey(purpose=purpose, created_at=now)
    key.sealed, public = custody().generate(key.custody_purpose)
    key.public, key.thumbprint = jose.jwk(public), jose.thumbprint(public)
    return key


def _saved(pair: GuardianPair) -> GuardianPair:
    """Save a new pair with its keys, all or nothing."""
    with transaction.atomic():
        for key in (pair.signing, pair.encryption):
            key.save(force_insert=True)
        pair.signing, pair.encryption = pair.signing, pair.encryption  # takes up the keys that they got just now
        pair.save(force_insert=True)
    return pair


def _line_to(pair: GuardianPair) -> list[GuardianPair]:
    """Return the pairs that led to this one, oldest first."""
    known = {each.pk: each for each in pairs()}
    line = [pair]
    while line[0].before_id is not None:
        line.insert(0, known[line[0].before_id])
    return line


def _private(key: ServiceKey) -> ec.EllipticCurvePrivateKey:
    return _opened(bytes(key.sealed), key.custody_purpose)


@lru_cache(maxsize=4 * MOST_PAIRS)
def _opened(sealed: bytes, purpose: str) -> ec.EllipticCurvePrivateKey:
    """Open a key once in a process; what is sealed says which one it is."""
    return custody().open(sealed, purpose)
