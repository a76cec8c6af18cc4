"""Policy versions written down whole (`attestation.core.policy_record`): from the rows that they are kept in."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from attestation.core.policy_record import PolicyRecord, baseline_content, code_policy_content, runtime_content
from attestation.models import Baseline, CodeIntegrityPolicy, PolicyVersion, RuntimePolicy


@dataclass(frozen=True, slots=True)
class Written:
    """A version's record, what the record names written down, and the blobs that this names in turn."""

    record: PolicyRecord
    contents: tuple[bytes, ...]
    blobs: tuple[str, ...]

    @classmethod
    def down(cls, version: PolicyVersion) -> "Written":
        document = version.content()
        baselines = Baseline.objects.in_bulk([UUID(each.id) for each in document.baselines])
        code_policies = CodeIntegrityPolicy.objects.in_bulk([UUID(each) for each in document.code_policies])
        runtime = RuntimePolicy.objects.filter(pk=document.runtime).first() if document.runtime else None
        written = {
            **{str(key): _baseline(row) for key, row in baselines.items()},
            **{str(key): _code_policy(row) for key, row in code_policies.items()},
        }
        said = b"" if runtime is None else _runtime(runtime)
        digests = {key: _digest(content) for key, content in written.items()}
        record = PolicyRecord(
            version=version.version,
            document=version.document,
            baselines={str(key): digests[str(key)] for key in baselines},
            runtime=_digest(said) if said else "",
            code_policies={str(key): digests[str(key)] for key in code_policies},
        )
        blobs = [
            *(row.event_log_id for row in baselines.values() if row.event_log_id),
            *(row.content_id for row in code_policies.values()),
            *([] if runtime is None else [runtime.content_id]),
        ]
        return cls(record, (*written.values(), *([said] if said else [])), tuple(blobs))

    @property
    def digest(self) -> str:
        """What stands in the ledger for the policy."""
        return _digest(self.record.content())


def _baseline(row: Baseline) -> bytes:
    return baseline_content(
        name=row.name,
        bank=row.bank,
        platform=row.platform,
        pcrs=row.pcrs,
        event_log=row.event_log_id or "",
        explained=row.explained_pcrs,
    )


def _runtime(row: RuntimePolicy) -> bytes:
    return runtime_content(text=row.content_id, excludes=row.excludes, signers=row.signers)


def _code_policy(row: CodeIntegrityPolicy) -> bytes:
    return code_policy_content(
        name=row.name, file=row.content_id, digests=row.digests, audits=row.audits, trivial=row.trivial
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
