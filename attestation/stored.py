"""Stored Evidence read again: what a host had proved, held against any policy, as if it had just come.

The rows are append-only and were verified when they came, so signatures are not checked again here.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from attestation import memory
from attestation.core.appraise import AttestationResult, Before, Checked, appraise, checked
from attestation.core.check import Counters
from attestation.core.claims import BANK, IMA_PCR, Boot, Claims, read_ima
from attestation.core.finding import Finding
from attestation.core.ima import START, Extension, ImaPosition, ImaReplay
from attestation.core.policy import AppraisalPolicy
from attestation.core.runtime import appraise_runtime
from attestation.core.tpm import Clock, parse_public
from attestation.core.transport import TransportKey
from attestation.models import Attestation, Blob, ImaProgress
from attestation.policy import runtime_rules


def claims_of(attestation: Attestation, *, with_ima: bool) -> Claims | None:
    """Return the Claims that an attestation's Evidence proved; None for one that was refused or whose log is not kept.

    The IMA list is put together from the parts that came since the boot, when `with_ima` asks for it.
    """
    if attestation.code or attestation.event_log_id is None or attestation.reset_count is None:
        return None
    public = parse_public(bytes.fromhex(attestation.evidence["transport_public"]))
    return Claims(
        pcrs=attestation.pcr_bytes(),
        boot=boot_of(attestation),
        ima=_ima_of(attestation) if with_ima else None,
        transport=TransportKey(public, public.spki),
        clock=Clock(0, attestation.reset_count, attestation.restart_count or 0, safe=True),
        firmware_version=int(attestation.firmware_version or "0", 16),
    )


def boot_of(attestation: Attestation) -> Boot:
    """Return what an attestation's boot log proves; the log has to be kept."""
    digest = str(attestation.event_log_id)
    return memory.boot(digest, attestation.pcr_bytes(), lambda: bytes(Blob.objects.get(pk=digest).content))


def appraise_again(attestation: Attestation, policy: AppraisalPolicy, *, now: datetime) -> AttestationResult | None:
    """Say what a policy makes of an attestation's Evidence; None when there is none to judge."""
    claims = claims_of(attestation, with_ima=policy.runtime is not None)
    if claims is None:
        return None
    return appraise(claims, policy, host=str(attestation.attester_id), now=now, before=_before(attestation))


def checked_again(attestation: Attestation, policy: AppraisalPolicy, *, now: datetime) -> tuple[Checked, ...]:
    """Return every check's answer to an attestation's Evidence, for people."""
    claims = claims_of(attestation, with_ima=policy.runtime is not None)
    return () if claims is None else checked(claims, policy, now=now, before=_before(attestation))


def _before(attestation: Attestation) -> Before:
    """The counters of the verified attestation before this one, which the host's own row has moved on from."""
    rows = Attestation.objects.filter(attester_id=attestation.attester_id, code="", pk__lt=attestation.pk)
    earlier = rows.order_by("-pk").only("reset_count", "restart_count", "boot_count").first()
    return (
        Before()
        if earlier is None
        else Before(Counters(earlier.reset_count, earlier.restart_count, earlier.boot_count))
    )


def runtime_findings(attester_id: UUID, progress: ImaProgress, runtime: str) -> tuple[Finding, ...] | None:
    """Hold the part of an IMA list that is known already against another runtime policy than it was held against.

    None when that part cannot be put together any more: then the host has to send its list from the start.
    """
    if not runtime:
        return ()
    newest = Attestation.objects.filter(attester_id=attester_id, code="").order_by("-pk").first()
    replayed = None if newest is None else _kept_list(newest, progress.reset_count)
    if newest is None or replayed is None or replayed.position.offset != progress.offset:
        return None
    return appraise_runtime(replayed, runtime_rules(runtime), pcrs=newest.pcr_bytes())


def position_of(progress: ImaProgress) -> ImaPosition:
    return ImaPosition(progress.offset, progress.entries, {BANK: bytes.fromhex(progress.pcr_value)})


def _ima_of(attestation: Attestation) -> ImaReplay | None:
    """Replay the whole list that an attestation's quote vouches for; None when the host sends none or none is kept."""
    whole = None if attestation.reset_count is None else _kept_list(attestation, attestation.reset_count)
    # Where the host sent no list this time, what is kept ends before its quote and says nothing about it.
    proved = whole is not None and whole.position.pcrs[BANK] == attestation.pcr_bytes()[IMA_PCR]
    return whole if proved else None


def _kept_list(last: Attestation, reset_count: int) -> ImaReplay | None:
    """Replay what is kept of a boot's list up to an attestation, each part against the quote that proved it."""
    fresh: list[bytes] = []
    digests: list[bytes] = []
    violations: list[bytes] = []
    position, entries = START, 0
    for part, quoted in _parts(last, reset_count):
        replayed = read_ima(part, {IMA_PCR: quoted}, after=position)
        if replayed is None:
            return None
        position, entries = replayed.position, entries + replayed.entries
        fresh += replayed.fresh
        digests += replayed.digests
        violations += replayed.untrusted_violations
    if not position.entries:
        return None
    lists = tuple(fresh), tuple(digests), tuple(violations)
    return ImaReplay(BANK, Extension.REHASHED, True, position, entries, *lists)


def _parts(last: Attestation, reset_count: int) -> Iterable[tuple[bytes, bytes]]:
    """The parts of the list in their order, each with the PCR 10 that proved it.

    From the last one that began at the list's start up to this attestation.
    """
    for row in _rows(last, reset_count).select_related("ima_log").only("ima_log__content", "ima_log", "pcrs"):
        if row.ima_log is not None:
            yield bytes(row.ima_log.content), row.pcr_bytes()[IMA_PCR]


def parts_of(attestation: Attestation) -> list[tuple[int, str]]:
    """Return where each part of an attestation's list began, and its digest, in their order."""
    if attestation.reset_count is None:
        return []
    rows = _rows(attestation, attestation.reset_count).values_list("ima_from", "ima_log_id")
    return [(begins, digest) for begins, digest in rows if digest is not None]


def _rows(last: Attestation, reset_count: int) -> QuerySet[Attestation]:
    rows = Attestation.objects.filter(attester_id=last.attester_id, code="", reset_count=reset_count, pk__lte=last.pk)
    parts = rows.filter(ima_log__isnull=False).order_by("pk")
    first = rows.filter(ima_from=0, ima_log__isnull=False).order_by("-pk").values_list("pk", flat=True).first()
    return parts.none() if first is None else parts.filter(pk__gte=first)
