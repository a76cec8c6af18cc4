"""`manage.py guardian`: what the portal's pages of the guardian keys do, from a console."""

from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from attestation.management.acts import ActsCommand, ask_for_decision, ask_for_person, person
from kps import service
from kps.service import RotationProposal


class Command(ActsCommand):
    help = (
        "List this fabric's guardian keys, prepare a pair, put a change of one forward, or decide it."
        " Each act is that of a person of the portal, with that person's rights and no more."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("list", help="every pair there ever was, and what depends on it; changes that wait")
        prepare = acts.add_parser("prepare", help="make a pair for later; owners may grant it at once")
        propose = acts.add_parser("propose", help="put forward to take a pair into use, to disable or to enable it")
        propose.add_argument("change", choices=RotationProposal.Change.values)
        propose.add_argument("pair", type=int, help="the pair's number")
        deciding = acts.add_parser("decide", help="decide a change that somebody else has put forward")
        ask_for_decision(deciding)
        ask_for_person(prepare, propose, deciding)

    def _list(self, options: dict[str, Any]) -> None:
        service.guardian_fingerprint(now=timezone.now())  # a fabric that nobody has asked yet makes its first pair
        depending = service.dependants_by_pair()
        for pair in service.pairs():
            count = depending.get(pair.fingerprint, 0)
            self.stdout.write(
                f"{pair.number}  {pair.get_state_display()}  {pair.fingerprint}  made {pair.created_at:%Y-%m-%d},"
                f" {count} key protector{'' if count == 1 else 's'} depend{'s' if count == 1 else ''} on it"
            )
        for each in service.rotations(state=RotationProposal.State.OPEN):
            self.stdout.write(f"proposal {each.pk}: {each.change} {each.pair}, by {each.proposed_by}: {each.reason}")

    def _prepare(self, options: dict[str, Any]) -> None:
        pair = service.prepare(by=person(options["by"]), reason=options["reason"], now=timezone.now())
        self.stdout.write(f"{pair.number}  {pair.fingerprint}  prepared")

    def _propose(self, options: dict[str, Any]) -> None:
        proposal = service.propose(
            options["pair"],
            options["change"],
            by=person(options["by"]),
            reason=options["reason"],
            now=timezone.now(),
        )
        depending = proposal.impact["protectors"]
        self.stdout.write(
            f"proposal {proposal.pk}: somebody else decides it; key protectors depending on it: {depending}"
        )

    def _decide(self, options: dict[str, Any]) -> None:
        proposal = service.decide(
            options["proposal"],
            by=person(options["by"]),
            approve=not options["reject"],
            reason=options["reason"],
            now=timezone.now(),
        )
        state = service.pairs().get(pk=proposal.pair_id).get_state_display().lower()
        self.stdout.write(f"{proposal.get_state_display().lower()}; {proposal.pair} is: {state}")
