"""`manage.py deny`: denials of keys and of certificates from a console, for the night in which no page answers."""

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError
from django.db.models import Q
from django.utils import timezone

from attestation import service as attestation
from attestation.management.acts import ActsCommand, ask_before, ask_for_decision, ask_for_person, person
from kps import service
from kps.service import KeyProtectorRecord

MOST_FOUND = 50


class Command(ActsCommand):
    help = (
        "Find key protectors, deny every release under one, or certificates by when they were issued, and allow a key"
        " again by two persons. What a denial reaches is said before it happens. Each act is that of a person of the"
        " portal, with that person's rights and no more."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("show", help="what is denied now, and what waits for a decision")
        find = acts.add_parser("find", help="key protectors that this fabric has seen")
        find.add_argument("query", nargs="?", default="", help="a part of the owner's name, fingerprint or the id")
        protector = acts.add_parser("protector", help="deny every release under a key protector")
        protector.add_argument("--with-machines", action="store_true", help="of shielding data: what was made from it")
        certificates = acts.add_parser("certificates", help="void the certificates that were issued before a moment")
        certificates.add_argument("--before", type=_moment, help="as 2026-11-26T21:00:00Z; without it, until now")
        lift = acts.add_parser("lift", help="put forward that a denied key is allowed again")
        for each in (protector, lift):
            each.add_argument("protector", type=UUID)
            each.add_argument("--owner", default="", help="how the owner's fingerprint begins, if several have it")
        deciding = acts.add_parser("decide", help="decide that, when somebody else has put it forward")
        ask_for_decision(deciding)
        ask_for_person(protector, certificates, lift, deciding)
        ask_before(protector, certificates)

    def _show(self, options: dict[str, Any]) -> None:
        for row in service.denied():
            self.stdout.write(f"{_line(row)}: {row.denied_reason}")
        for lift in service.lifts(state="open"):
            self.stdout.write(f"proposal {lift.pk}: {lift.record} allowed again, by {lift.proposed_by}: {lift.reason}")

    def _find(self, options: dict[str, Any]) -> None:
        query = options["query"]
        mentions = Q(owner_name__icontains=query) | Q(owner_fingerprint__startswith=query.lower())
        for row in service.protectors().filter(mentions | Q(protector_id__icontains=query))[:MOST_FOUND]:
            self.stdout.write(_line(row))

    def _protector(self, options: dict[str, Any]) -> None:
        by, row = person(options["by"]), _one(options)
        self._say_reach(row, with_machines=options["with_machines"], now=timezone.now())
        if self.agreed(options):
            said = {"reason": options["reason"], "with_machines": options["with_machines"]}
            service.deny_protector(row.owner_fingerprint, row.protector_id, by=by, now=timezone.now(), **said)
            self.stdout.write(f"denied: {row.protector_id} of {row.owner_name}; no host gets its key from now on")

    def _say_reach(self, row: KeyProtectorRecord, *, with_machines: bool, now: datetime) -> None:
        key = (row.owner_fingerprint, row.protector_id)
        places = service.places_of([key], now=now).get(key, [])
        holding = sorted(each.host for each in places if each.holds)
        self.stdout.write(f"{_line(row)}\nruns on, as far as this fabric knows: {', '.join(holding) or 'no host'}")
        if until := max((each.offline_until for each in places if each.offline_until), default=None):
            self.stdout.write(f"can be started without this fabric until {until:%Y-%m-%d %H:%M} UTC all the same")
        if with_machines:
            self.stdout.write(f"machines made from it that are denied with it: {service.made_from(*key).count()}")

    def _certificates(self, options: dict[str, Any]) -> None:
        by, now = person(options["by"]), timezone.now()
        before = options["before"] or now
        hosts = attestation.certified_before(before, now=now)
        running = {each.machine for each in service.keys_on(hosts, now=now) if each.holds}
        self.stdout.write(
            f"hosts without a certificate until they attest again: {len(hosts)}; VMs that run there, as far as this"
            f" fabric knows, and go on: {len(running)}"
        )
        if self.agreed(options):
            now = timezone.now()  # not that of the question: what was issued meanwhile is not spared
            before = options["before"] or now
            attestation.deny_issued_before(before, by=by, reason=options["reason"], now=now)
            self.stdout.write(f"void: every certificate issued before {before:%Y-%m-%d %H:%M:%S} UTC")

    def _lift(self, options: dict[str, Any]) -> None:
        row = _one(options)
        by, reason = person(options["by"]), options["reason"]
        lift = service.propose_lift(row.owner_fingerprint, row.protector_id, by=by, reason=reason, now=timezone.now())
        self.stdout.write(f"proposal {lift.pk}: somebody else decides it")

    def _decide(self, options: dict[str, Any]) -> None:
        by, approve = person(options["by"]), not options["reject"]
        lift = service.decide_lift(
            options["proposal"], by=by, approve=approve, reason=options["reason"], now=timezone.now()
        )
        self.stdout.write(f"{lift.get_state_display().lower()}: {lift.record} allowed again")


def _one(options: dict[str, Any]) -> KeyProtectorRecord:
    """Return the one key protector of this id; an id is what anybody can sign into one of their own."""
    owned = service.protectors().filter(owner_fingerprint__startswith=options["owner"].lower())
    found = list(owned.filter(protector_id=options["protector"])[:2])
    if not found:
        raise CommandError("This fabric has seen no such key protector.")
    if len(found) > 1:
        raise CommandError("Several owners have a key protector of this id. Say whose it is with --owner.")
    return found[0]


def _line(row: KeyProtectorRecord) -> str:
    last = f"last released {row.last_released:%Y-%m-%d %H:%M} UTC" if row.last_released else "never released"
    denied = f", denied {row.denied_at:%Y-%m-%d %H:%M} UTC by {row.denied_by}" if row.denied_at else ""
    return f"{row.protector_id}  {row.owner_name} {row.owner_fingerprint[:16]}…  {row.level}, {last}{denied}"


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
