"""Windows code integrity policies as people register them: read before they are added, and never changed after.

Adding one changes nothing for any host: it counts where a policy version names it, and that is a draft, a dry run and
another person's decision (`attestation.policies`).
"""

import hashlib
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from attestation.acts import record, require
from attestation.core.ci_difference import PolicyChange, ci_difference
from attestation.core.ci_policy import CodeIntegrityPolicy as Decoded
from attestation.core.ci_policy import parse_ci_policy
from attestation.errors import AlreadyDecided, NotFound
from attestation.models import Blob, CodeIntegrityPolicy


def add_code_policy(content: bytes, *, name: str, file_name: str, by: User, now: datetime) -> CodeIntegrityPolicy:
    """Register a policy file (.p7b, .cip, .bin). Raises ParseError, or AlreadyDecided for a policy that is there.

    Its id is the head of the digest that hosts measure: the same policy, signed or not, cannot be there twice.
    """
    require(by, "attestation.propose")
    policy = parse_ci_policy(content)
    digest = policy.digests["sha256"]
    kept = hashlib.sha256(content).hexdigest()
    signed = "signed" if policy.signed else "not signed"
    with transaction.atomic():
        blob = Blob.objects.get_or_create(pk=kept, defaults={"content": content, "size": len(content)})[0]
        try:
            with transaction.atomic():
                row = CodeIntegrityPolicy.objects.create(
                    id=UUID(digest[:32]),
                    name=name,
                    content=blob,
                    digests=dict(policy.digests),
                    audits=policy.audits,
                    trivial=list(policy.trivial),
                    added_at=now,
                    added_by=by.get_username(),
                    origin=f"Version {policy.version}, {signed}, from {file_name}"[:300],
                )
        except IntegrityError:
            known = code_policy(UUID(digest[:32]))
            raise AlreadyDecided(
                f"{known.added_by} has added this policy already, as “{known.name}”. Signed or not, it is the same."
            ) from None
        detail = {"name": name, "sha256": digest, "audits": policy.audits, "trivial": bool(policy.trivial)}
        record(by, "codepolicy.added", row.subject, detail, now)
    return row


def code_policies() -> QuerySet[CodeIntegrityPolicy]:
    """Return every registered policy, by name, newest first."""
    return CodeIntegrityPolicy.objects.select_related("content").defer("content__content")


def code_policy(policy_id: UUID) -> CodeIntegrityPolicy:
    found = code_policies().filter(pk=policy_id).first()
    if found is None:
        raise NotFound("There is no such code integrity policy.")
    return found


def file_of(policy: CodeIntegrityPolicy) -> bytes:
    """Return the file as it was uploaded."""
    return bytes(Blob.objects.get(pk=policy.content_id).content)


def decoded(policy: CodeIntegrityPolicy) -> Decoded:
    """Return what a registered policy says, read from its file anew."""
    return parse_ci_policy(file_of(policy))


def difference(before: CodeIntegrityPolicy, after: CodeIntegrityPolicy) -> tuple[PolicyChange, ...]:
    """Say line by line what one policy has that another has not; never empty for two different ones."""
    return ci_difference(decoded(before), decoded(after))
