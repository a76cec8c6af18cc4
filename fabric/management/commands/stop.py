"""`manage.py stop`: stops of releases from a console, for the night in which no page answers."""

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError
from django.http import Http404
from django.utils import timezone

from attestation import service
from attestation.management.acts import ActsCommand, ask_before, ask_for_decision, ask_for_person, decide, person
from fabric.stopping import impact_of, scope_of


class Command(ActsCommand):
    help = (
        "Stop every release of keys to a host, to a group of hosts or at all, show what is stopped, and lift it again"
        " by two persons. What a stop reaches is said before it happens. Each act is that of a person of the portal,"
        " with that person's rights and no more."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("show", help="what is stopped now")
        fabric = acts.add_parser("fabric", help="stop every release")
        group = acts.add_parser("group", help="stop the releases to a group of hosts")
        group.add_argument("group")
        host = acts.add_parser("host", help="stop the releases to a host, which stays approved")
        host.add_argument("attester", type=UUID, help="the id that the host's page has in its address")
        lift = acts.add_parser("lift", help="put forward that a stop ends")
        lift.add_argument("stop", type=int)
        deciding = acts.add_parser("decide", help="decide a lift that somebody else has put forward")
        ask_for_decision(deciding)
        ask_for_person(fabric, group, host, lift, deciding)
        ask_before(fabric, group, host)

    def _show(self, options: dict[str, Any]) -> None:
        for stop in service.stops_in_force():
            self.stdout.write(
                f"stop {stop.pk}: {stop.name}, since {stop.at:%Y-%m-%d %H:%M:%S} UTC by {stop.by}: {stop.reason}"
            )

    def _fabric(self, options: dict[str, Any]) -> None:
        self._stop("fabric", "", options)

    def _group(self, options: dict[str, Any]) -> None:
        self._stop("group", options["group"], options)

    def _host(self, options: dict[str, Any]) -> None:
        self._stop("host", str(options["attester"]), options)

    def _stop(self, kind: str, target: str, options: dict[str, Any]) -> None:
        now = timezone.now()
        try:
            scope = scope_of(kind, target, now=now)
        except Http404:
            raise CommandError(f"There is no such {kind}.") from None
        impact = impact_of(scope, now=now)
        self.stdout.write(
            f"{scope.title}: {impact.hosts} approved hosts, {impact.certified} with a certificate\n"
            f"VMs that run there, as far as this fabric knows, and go on: {impact.running}, of {impact.owners} owners"
        )
        if impact.offline_until:
            until = f"{impact.offline_until:%Y-%m-%d %H:%M} UTC"
            self.stdout.write(
                f"VMs that can be started there without this fabric all the same: {impact.offline}, until {until}"
            )
        if self.agreed(options):
            stop = scope.stop(**_acting(options))
            self.stdout.write(f"stop {stop.pk}: no key goes to {stop.name} from now on")

    def _lift(self, options: dict[str, Any]) -> None:
        self.put_forward(service.propose_lift(options["stop"], **_acting(options)))

    def _decide(self, options: dict[str, Any]) -> None:
        decide(options)
        self._show(options)


def _acting(options: dict[str, Any]) -> dict[str, Any]:
    return {"by": person(options["by"]), "reason": options["reason"], "now": timezone.now()}
