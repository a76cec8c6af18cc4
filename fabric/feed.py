"""The ledger's acts as sentences, for the feed and the audit list."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from django.urls import reverse

from ledger import service as ledger

SENTENCES = {
    "attestation.passed": "{name} passed under policy v{policy}",
    "attestation.failed": "{name} did not pass: {status}",
    "attestation.trial_passed": "{name} is ready for {mode} mode",
    "attestation.trial_failed": "{name} is not ready for {mode} mode: {status}",
    "attestation.refused": "Evidence in the name of {name} was refused: {code}",
    "trial.passed": "{name} was diagnosed and would pass",
    "trial.failed": "{name} was diagnosed and would not pass: {status}",
    "trial.refused": "Evidence for a diagnosis in the name of {name} was refused: {code}",
    "challenge.refused": "An attempt to attest was refused: {why}",
    "host.enrolled": "{name} asks to be enrolled",
    "host.key_registered": "{name} asks to be known by a host key",
    "host.joined": "{name} attests by its account in {group}",
    "host.identity_changed": "{name} asks to be enrolled with another TPM",
    "host.enrolment_refused": "An enrolment was refused: {why}",
    "host.activation_refused": "An activation was refused: {why}",
    "host.announced": "{actor} announced host {name}",
    "host.move_proposed": "{actor} wants host {name} in another group: {group}",
    "host.proposed": "{actor} put host {name} forward",
    "host.approved": "{actor} approved host {name}",
    "host.rejected": "{actor} rejected host {name}",
    "host.revoked": "{actor} revoked host {name}",
    "baseline.captured": "{actor} captured baseline {name} from {host}",
    "baseline.approved": "{actor} approved baseline {name}",
    "baseline.rejected": "{actor} rejected baseline {name}",
    "baseline.retired": "{actor} retired a baseline",
    "baseline.uploaded": "{actor} uploaded baseline {name}",
    "baseline.amended": "{actor} amended baseline {name}",
    "baseline.drafted": "{actor} drafted baseline {name}",
    "baseline.proposed": "{actor} put baseline {name} forward",
    "baseline.dropped": "{actor} dropped baseline {name}",
    "component.vouched": "{actor} said that a digest is {name}",
    "group.added": "{actor} added the group {name}",
    "policy.proposed": "{actor} put the policy change {name} forward",
    "policy.approved": "{actor} approved the policy change {name}",
    "policy.rejected": "{actor} rejected the policy change {name}",
    "mode.proposed": "{actor} wants {name}",
    "mode.approved": "{actor} switched the fabric to {name}",
    "mode.rejected": "{actor} rejected a switch to {name}",
    "mode.rolled_back": "{actor} went back to {name}",
    "kerberos.proposed": "{actor} put the directory's group {name} forward",
    "kerberos.approved": "{actor} approved the directory's group {name}",
    "kerberos.rejected": "{actor} rejected the directory's group {name}",
    "kerberos.retired": "{actor} retired the directory's group {name}",
    "ticket.refused": "A Kerberos ticket was refused: {why}",
    "runtime.added": "{actor} made runtime policy {name}",
    "codepolicy.added": "{actor} added code integrity policy {name}",
    "stop.begun": "{actor} stopped every release of keys to {name}",
    "lift.proposed": "{actor} wants to lift the stop of {name}",
    "lift.approved": "{actor} lifted the stop of {name}",
    "lift.rejected": "{actor} let the stop of {name} stand",
    "certificate.revoked": "{actor} revoked the certificate of {name}",
    "certificates.denied": "{actor} denied certificates issued before {before}",
    "key.released": "Key of VM {vm} released to {host}",
    "key.refused": "Key of VM {vm} refused to {host}: {why}",
    "authority.trusted": "The TPM maker {name} is trusted from now on",
    "authority.enabled": "{actor} lets the authority {name} count again",
    "authority.disabled": "{actor} lets the authority {name} count no more",
    "authorities.imported": "{actor} trusted CA certificates of TPM makers from {file} ({count})",
    "maker.enabled": "{actor} trusts the TPM maker {name} again",
    "maker.disabled": "{actor} trusts the TPM maker {name} no more",
    "maker.exceptions_set": "{actor} changed what is forgiven in certificates of {name}",
    "host.endorsement_changed": "What the EK certificate of {name} proves has changed: {verdict}",
    "token.made": "{actor} made the API token {name}",
    "token.ended": "{actor} ended the API token {name} of {person}",
    "person.added": "{subject} was added on the console, as {role}",
    "tenant.added": "{name} is a tenant from now on",
    "protector.denied": "{actor} denied releases under key protector {protector} of owner {owner:.16}",
    "protector.lift_proposed": "{actor} wants key protector {protector} of owner {owner:.16} allowed again",
    "protector.lift_rejected": "{actor} let the denial of key protector {protector} of owner {owner:.16} stand",
    "protector.allowed": "{actor} allowed releases under key protector {protector} of owner {owner:.16} again",
    "protector.denied_by_owner": "{actor} denied releases of a key of the own tenant’s",
    "protector.allowed_by_owner": "{actor} allowed releases of a key of the own tenant’s again",
    "guardian.prepared": "{actor} prepared {name} of this fabric's guardian",
    "guardian.proposed": "{actor} wants to {change} {name} of this fabric's guardian",
    "guardian.rejected": "{actor} rejected a change of {name} of this fabric's guardian",
    "guardian.promoted": "{actor} took {name} of this fabric's guardian into use",
    "guardian.disabled": "{actor} disabled {name} of this fabric's guardian",
    "guardian.enabled": "{actor} enabled {name} of this fabric's guardian again",
    "custody.created": "{actor} made the root key of this service's own keys, in custody {custody}",
    "custody.moved": "{actor} moved this service's own keys from custody {from} to {custody}, under {root} root",
    "custody.backed-up": "{actor} wrote a backup of the root key of this service's own keys",
    "custody.restored": "{actor} brought the root key of this service's own keys back from a backup",
    "custody.recovered": "{actor} sealed this service's root key to a TPM anew, with the recovery share",
    "custody.share-renewed": "{actor} made another recovery share of this service's root key",
    "machine.added": "{actor} added VM {name}",
    "key.returned": "VM {vm} stopped on {host}",
    "chain.taken": "The owner’s statement {serial} is in force, in the place of {before}",
    "chain.refused": "The owner’s statement {serial} was brought again; {in_force} is in force",
    "approval.given": "{actor} approved a start of VM {vm} on {host}",
    "approval.declined": "{actor} declined a start of VM {vm} on {host}",
    "machine.made": "VM {name} was made from shielding data",
    "machine.ordered": "{actor} ordered VM {name}",
    "machine.order_cancelled": "{actor} cancelled the order of VM {name}",
    "shielding_data.added": "{actor} uploaded shielding data {name}",
    "shielding_data.restated": "{actor} uploaded {name} again, under statement {serial}",
    "shielding_data.withdrawn": "{actor} withdrew shielding data {name}",
    "ledger.begun": "The log {name} began",
    "ledger.begun_anew": "{actor} ended the log, and {name} began in its place",
    "ledger.counted": "The log was closed at {size} entries",
    "witness.added": "{actor} lets {name} witness the log",
    "witness.removed": "{actor} lets {name} witness the log no more",
    "template.added": "{actor} offers the template {name}",
    "template.retired": "{actor} retired the template {name}",
    "template.offered_again": "{actor} offers the template {name} again",
}


class Recorded(Protocol):
    """A leaf, as far as its sentence needs it."""

    id: int
    at: datetime
    actor: str
    act: str
    subject: str
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Line:
    """One act, ready to be shown."""

    id: int
    at: datetime
    act: str
    before: str
    name: str  # what the sentence is about, and links to
    after: str
    url: str


def newest(count: int) -> list[Line]:
    """Return what has happened lately; that the log counts its entries every second is no news."""
    return [line(leaf) for leaf in ledger.leaves().exclude(act=ledger.COUNTED)[:count]]


def line(leaf: Recorded) -> Line:
    words = defaultdict(lambda: "an unnamed one", {name: str(value) for name, value in leaf.detail.items()})
    words.update(actor=leaf.actor.removeprefix("user:"), act=leaf.act, subject=leaf.subject)
    text = SENTENCES.get(leaf.act, "{act}: {subject}").format_map(words)
    about = next((key for key in ("name", "host", "file") if key in leaf.detail), "host")
    before, name, after = text.partition(words[about])
    return Line(leaf.id, leaf.at, leaf.act, before, name, after, _page_of(leaf.subject) or _page_of(leaf.actor))


def _page_of(subject: str) -> str:
    """Return the page of a subject, or nothing for what has none."""
    kind, _, identifier = subject.partition(":")
    pages = {
        "host": "host",
        "baseline": "baseline",
        "component": "component",
        "runtime": "runtime-policy",
        "codepolicy": "code-policy",
        "maker": "maker",
        "authority": "authority",
        "bundle": "bundle",
        "template": "template",
        "order": "order",
    }
    if kind in ("guardian", "custody"):
        return reverse("keys")
    return reverse(pages[kind], args=[identifier]) if kind in pages and identifier else ""
