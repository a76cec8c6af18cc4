"""`manage.py mode`: what the portal's pages of the attestation mode do, from a console."""

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from attestation import service
from attestation.management.acts import ActsCommand, ask_for_decision, ask_for_person, decide, person
from attestation.service import Mode


class Command(ActsCommand):
    help = (
        "Show the attestation mode, rehearse another, put a switch forward, decide it, or take the last one back."
        " Each act is that of a person of the portal, with that person's rights and no more."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("show", help="the mode in force, and the history")
        rehearse = acts.add_parser("rehearse", help="who is ready for another mode, and who is not, and why")
        rehearse.add_argument("mode", choices=Mode.values)
        rehearse.add_argument("--json", action="store_true", dest="as_json")
        propose = acts.add_parser("propose", help="put a switch forward")
        propose.add_argument("mode", choices=Mode.values)
        propose.add_argument("--grace-hours", type=int, default=8, help="0 cuts old certificates off at once")
        deciding = acts.add_parser("decide", help="decide a switch that somebody else has put forward")
        ask_for_decision(deciding)
        back = acts.add_parser("back", help="take the last switch back")
        ask_for_person(propose, deciding, back)

    def _show(self, options: dict[str, Any]) -> None:
        for each in service.switches():
            until = f", {each.before} until {each.before_until:%Y-%m-%d %H:%M:%S} UTC" if each.before_until else ""
            self.stdout.write(
                f"{each.mode}  since {each.since:%Y-%m-%d %H:%M:%S} UTC by {each.by}{until}: {each.reason}"
            )

    def _rehearse(self, options: dict[str, Any]) -> None:
        rows = service.rehearsal(Mode(options["mode"]), now=timezone.now())
        if options["as_json"]:
            hosts = [
                {
                    "host": row.known.name,
                    "ready": row.ready,
                    "loses": row.loses,
                    "why": row.why,
                    "remedy": row.remedy,
                }
                for row in rows
            ]
            self.stdout.write(json.dumps({**service.impact_of(rows).kept(), "hosts": hosts}))
            return
        for row in rows:
            word = "ready" if row.ready else "would lose" if row.loses else "not ready"
            self.stdout.write(f"{row.known.name}  {word}  {row.why} {row.remedy}".rstrip())
        impact = service.impact_of(rows)
        self.stdout.write(f"{impact.ready} ready, {impact.unready} not, {impact.losing} would lose new starts")

    def _propose(self, options: dict[str, Any]) -> None:
        proposal = service.propose_switch(
            Mode(options["mode"]),
            grace=timedelta(hours=options["grace_hours"]),
            by=person(options["by"]),
            reason=options["reason"],
            now=timezone.now(),
        )
        self.put_forward(proposal)

    def _decide(self, options: dict[str, Any]) -> None:
        proposal = service.proposal(options["proposal"])
        if proposal.plan is None:
            raise CommandError(f"Proposal {proposal.pk} is about no switch of the mode.")
        decide(options)
        self.stdout.write(f"the fabric is in {service.mode_in_force()} mode")

    def _back(self, options: dict[str, Any]) -> None:
        service.roll_back(by=person(options["by"]), reason=options["reason"], now=timezone.now())
        self.stdout.write(f"the fabric is in {service.mode_in_force()} mode")
