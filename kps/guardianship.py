"""This fabric's own guardian: its keys in custody, its card, and its keys opened for a moment."""

from collections.abc import Collection
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.db import IntegrityError, transaction

from kps.core import jose
from kps.core.guardian import Guardian, GuardianKeys, build_metadata
from kps.models import ServiceKey
from ledger.custody import custody

Purpose = ServiceKey.Purpose


def metadata(*, now: datetime) -> str:
    """Return this fabric's card, signed by itself: what tenants import, after they compared its fingerprint."""
    return build_metadata(_opened(_primary(Purpose.SIGNING, now), _primary(Purpose.ENCRYPTION, now)), now=now)


def guardian_fingerprint(*, now: datetime) -> str:
    """Return what a tenant compares with the metadata it has imported."""
    return _card(_primary(Purpose.SIGNING, now), _primary(Purpose.ENCRYPTION, now)).fingerprint


def our_fingerprints() -> Collection[str]:
    """Return the fingerprints of every pair of keys that has been, or may have been, this fabric's guardian."""
    keys = list(ServiceKey.objects.all())
    signing = [key for key in keys if key.purpose == Purpose.SIGNING]
    encryption = [key for key in keys if key.purpose == Purpose.ENCRYPTION]
    return {_card(one, other).fingerprint for one in signing for other in encryption}


def our_keys(guardian: Guardian) -> GuardianKeys:
    """Return the private keys behind a card of ours."""
    return _opened(
        ServiceKey.objects.get(purpose=Purpose.SIGNING, thumbprint=jose.thumbprint(guardian.signing)),
        ServiceKey.objects.get(purpose=Purpose.ENCRYPTION, thumbprint=jose.thumbprint(guardian.encryption)),
    )


def _primary(purpose: ServiceKey.Purpose, now: datetime) -> ServiceKey:
    """Return the key in use, made when it is first asked for. Nodes may race: the first wins and all use its key."""
    found = ServiceKey.objects.filter(purpose=purpose, primary=True).first()
    if found is not None:
        return found
    key = ServiceKey(purpose=purpose, primary=True, created_at=now)
    key.sealed, public = custody().generate(key.custody_purpose)
    key.public, key.thumbprint = jose.jwk(public), jose.thumbprint(public)
    try:
        with transaction.atomic():
            key.save(force_insert=True)
    except IntegrityError:
        return ServiceKey.objects.get(purpose=purpose, primary=True)
    return key


def _card(signing: ServiceKey, encryption: ServiceKey) -> Guardian:
    return Guardian(
        settings.FABRIC_NAME, jose.parse_public_key(signing.public), jose.parse_public_key(encryption.public)
    )


def _opened(signing: ServiceKey, encryption: ServiceKey) -> GuardianKeys:
    return GuardianKeys(settings.FABRIC_NAME, _private(signing), _private(encryption))


def _private(key: ServiceKey) -> ec.EllipticCurvePrivateKey:
    return custody().open(bytes(key.sealed), key.custody_purpose)
