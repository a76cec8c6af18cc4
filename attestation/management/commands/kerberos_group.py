"""`manage.py kerberos_group`: which groups of the directory hosts may be in, from a console."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from attestation import service
from attestation.management.acts import ActsCommand, ask_for_decision, ask_for_person, decide, person


class Command(ActsCommand):
    help = (
        "List the groups of the directory whose hosts attest in Kerberos mode, put one forward, decide, or retire one."
        " Each act is that of a person of the portal, with that person's rights and no more."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("list", help="every group that was ever put forward")
        propose = acts.add_parser("propose", help="put a group forward")
        propose.add_argument("sid", help="the whole SID, as in S-1-5-21-1-2-3-1104")
        propose.add_argument("name", help="what people call it")
        propose.add_argument("--group", default="default", help="the group of hosts that its members belong to here")
        deciding = acts.add_parser("decide", help="decide about a group that somebody else has put forward")
        ask_for_decision(deciding)
        retire = acts.add_parser("retire", help="end a group's approval, at once")
        retire.add_argument("sid")
        ask_for_person(propose, deciding, retire)

    def _list(self, options: dict[str, Any]) -> None:
        for each in service.kerberos_groups():
            self.stdout.write(f"{each.sid}  {each.state}  {each.name}, of {each.group.name}")

    def _propose(self, options: dict[str, Any]) -> None:
        proposal = service.propose_kerberos_group(
            options["sid"],
            options["name"],
            by=person(options["by"]),
            reason=options["reason"],
            now=timezone.now(),
            group=options["group"],
        )
        self.put_forward(proposal)

    def _decide(self, options: dict[str, Any]) -> None:
        proposal = service.proposal(options["proposal"])
        if proposal.kerberos_group is None:
            raise CommandError(f"Proposal {proposal.pk} is about no group of the directory.")
        decide(options)
        self.stdout.write(f"{proposal.kerberos_group.name} is {'rejected' if options['reject'] else 'approved'}")

    def _retire(self, options: dict[str, Any]) -> None:
        found = service.kerberos_groups().filter(sid=options["sid"], state="approved").first()
        if found is None:
            raise CommandError(f"No approved group has the SID {options['sid']}.")
        service.retire_kerberos_group(found.pk, by=person(options["by"]), reason=options["reason"], now=timezone.now())
        self.stdout.write(f"{found.name} counts no more")
