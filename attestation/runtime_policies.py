"""Runtime policies: lists of files that may run, in versions that never change.

Making one changes nothing for any host: it counts where a policy version names it, and that is a draft, a dry run and
another person's decision (`attestation.policies`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from attestation import policies
from attestation.acts import record, require
from attestation.core.document import to_json
from attestation.core.finding import Deviation, finding_from
from attestation.core.ima_signature import parse_signer
from attestation.core.runtime import RuntimePolicy as Rules
from attestation.core.runtime import amend
from attestation.core.runtime_findings import MEASURED_FILE
from attestation.core.runtime_text import parse_runtime_text, runtime_text, text_path
from attestation.errors import AlreadyDecided, CannotApprove, NotFound, ParseError, TooLarge
from attestation.models import Attestation, Blob, PolicyDraft, RuntimePolicy
from attestation.policy import runtime_rules
from attestation.runtime_reads import runtime_policy
from attestation.sources import require_source
from attestation.stored import claims_of

SIGNERS_LIMIT = 256 * 1024
UPLOAD_LIMIT = 64 << 20


def from_host(
    attestation_id: int, *, name: str, excludes: Sequence[str], signers: bytes, by: User, now: datetime
) -> RuntimePolicy:
    """Accept what a reference host was proved to have measured since it started, but for its boot aggregate."""
    require(by, "attestation.propose")
    found = _verified(attestation_id)
    claims = None if found is None else claims_of(found, with_ima=True)
    if found is None or claims is None or claims.ima is None:
        raise NotFound("No proved IMA list is kept under that number.")
    require_source(found.attester)
    rules = Rules.from_list(claims.ima.fresh, excludes=tuple(each.encode() for each in excludes))
    origin = f"What {found.attester.name} had measured, attestation {found.pk}"
    return _add(rules, name=name, excludes=excludes, signers=_signers(signers), origin=origin, by=by, now=now)


def from_text(
    text: bytes, *, name: str, excludes: Sequence[str], signers: bytes, origin: str, by: User, now: datetime
) -> RuntimePolicy:
    """Accept an uploaded list ("sha256:<hex>  <path>" lines), files signed by these certificates (PEM), or both."""
    require(by, "attestation.propose")
    if len(text) > UPLOAD_LIMIT:
        raise TooLarge(f"The list has {len(text)} bytes; {UPLOAD_LIMIT} is the limit.")
    certificates = _signers(signers)
    rules = parse_runtime_text(text, excludes=excludes)
    if not rules.accepted and not certificates:
        raise ParseError("The list names no file and no signing certificate, so nothing could run.")
    return _add(rules, name=name, excludes=excludes, signers=certificates, origin=origin, by=by, now=now)


def accept_files(policy_id: UUID, lines: Sequence[str], *, by: User, now: datetime) -> RuntimePolicy:
    """Make the next version of a policy, which accepts these lines too."""
    require(by, "attestation.propose")
    row = runtime_policy(policy_id)
    rules = _newest(row)
    for line in lines:
        digest, _, path = line.partition("  ")
        rules = amend(rules, text_path(path.encode("utf-8")), digest)
    if rules.accepted == _newest(row).accepted:
        raise CannotApprove("The policy accepts all of these already.")
    files = "1 file" if len(lines) == 1 else f"{len(lines)} files"
    return _add(
        rules,
        name=row.name,
        excludes=row.excludes,
        signers=row.signers,
        origin=f"v{row.version}, and {files} accepted from findings",
        by=by,
        now=now,
    )


def accept_finding(
    attestation_id: int, number: int, *, also: Sequence[int] = (), by: User, now: datetime
) -> PolicyDraft:
    """Turn findings about files into a draft of the group's policy that accepts them: one click, then as usual."""
    require(by, "attestation.propose")
    found = _verified(attestation_id)
    if found is None or not all(0 <= each < len(found.findings) for each in (number, *also)):
        raise NotFound("There is no such finding.")
    files = [accepted for each in dict.fromkeys((number, *also)) for accepted in files_of(found.findings[each])]
    if not files:
        raise CannotApprove("This finding is about no file that could be accepted.")
    require_source(found.attester)
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    title = f"Accept {files[0].text[:100]}{more}"
    with transaction.atomic():
        draft = policies.start_draft(str(found.attester.group_id), title=title, by=by, now=now)
        document = draft.content()
        if not document.runtime:
            raise CannotApprove("The group's policy names no runtime policy any more.")
        lines = [f"{each.seen}  {each.text}" for each in files]
        policy = accept_files(UUID(document.runtime), lines, by=by, now=now)
        changed = to_json(replace(document, runtime=str(policy.pk)))
        return policies.change_draft(draft.pk, changed, revision=draft.revision, by=by, now=now)


def acceptable(found: Attestation) -> frozenset[int]:
    """Return the places of the findings that are about files which a runtime policy could accept."""
    return frozenset(at for at, finding in enumerate(found.findings) if files_of(finding))


def files_of(finding: Mapping[str, Any]) -> tuple[Deviation, ...]:
    """Return the files that a stored finding is about and that a runtime policy could accept."""
    return tuple(each for each in finding_from(finding).deviations if each.name == MEASURED_FILE)


def _verified(attestation_id: int) -> Attestation | None:
    return Attestation.objects.select_related("attester").filter(pk=attestation_id, code="").first()


def _newest(row: RuntimePolicy) -> Rules:
    return runtime_rules(str(row.pk))


def _signers(pem: bytes) -> list[str]:
    """Read signing certificates; the policy keeps them as hexadecimal DER."""
    if not pem.strip():
        return []
    if len(pem) > SIGNERS_LIMIT:
        raise TooLarge(f"The certificates have {len(pem)} bytes; {SIGNERS_LIMIT} is the limit.")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ParseError(f"The file holds no readable PEM certificate: {error}") from error
    ders = list(dict.fromkeys(each.public_bytes(Encoding.DER) for each in certificates))
    for der in ders:
        parse_signer(der)
    return [der.hex() for der in ders]


def _add(
    rules: Rules,
    *,
    name: str,
    excludes: Sequence[str],
    signers: list[str],
    origin: str,
    by: User,
    now: datetime,
) -> RuntimePolicy:
    text = runtime_text(rules)
    digest = hashlib.sha256(text).hexdigest()
    newest = RuntimePolicy.objects.filter(name=name).order_by("-version").first()
    with transaction.atomic():
        content = Blob.objects.get_or_create(pk=digest, defaults={"content": text, "size": len(text)})[0]
        try:
            with transaction.atomic():
                row = RuntimePolicy.objects.create(
                    name=name,
                    version=1 if newest is None else newest.version + 1,
                    content=content,
                    entries=sum(map(len, rules.accepted.values())),
                    excludes=list(excludes),
                    signers=signers,
                    origin=origin[:300],
                    created_at=now,
                    created_by=by.get_username(),
                )
        except IntegrityError:
            raise AlreadyDecided("Somebody else made this version meanwhile. Look at it, then try again.") from None
        detail = {"name": str(row), "entries": row.entries, "sha256": digest, "origin": row.origin}
        record(by, "runtime.added", row.subject, detail, now)
    return row
