"""What the Verifier keeps. Private to this app: others come through `attestation.service`."""

from attestation.models.certificates import DenyBefore, HealthCertificate, SignerKey
from attestation.models.evidence import Attestation, Blob, Challenge, Component, ImaProgress, Trial
from attestation.models.hosts import DEFAULT_GROUP, Attester, Enrolment, ExpectedHost, HostGroup, Mode
from attestation.models.kerberos import KerberosGroup
from attestation.models.makers import AuthorityBundle, EndorsementAuthority, Vendor
from attestation.models.modes import ModePlan, ModeSwitch
from attestation.models.policies import DryRun, DryRunRow, PolicyDraft, PolicyVersion, Proposal
from attestation.models.references import Baseline, CodeIntegrityPolicy, RuntimePolicy
from attestation.models.stops import Stop

__all__ = [
    "DEFAULT_GROUP",
    "Attestation",
    "Attester",
    "AuthorityBundle",
    "Baseline",
    "Blob",
    "Challenge",
    "CodeIntegrityPolicy",
    "Component",
    "DenyBefore",
    "DryRun",
    "DryRunRow",
    "EndorsementAuthority",
    "Enrolment",
    "ExpectedHost",
    "HealthCertificate",
    "HostGroup",
    "ImaProgress",
    "KerberosGroup",
    "Mode",
    "ModePlan",
    "ModeSwitch",
    "PolicyDraft",
    "PolicyVersion",
    "Proposal",
    "RuntimePolicy",
    "SignerKey",
    "Stop",
    "Trial",
    "Vendor",
]
