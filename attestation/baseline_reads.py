"""What pages show of baselines: rules that people can read, where they come from, when they count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import OuterRef, Subquery

from attestation import memory
from attestation.comparison import MEANING
from attestation.core.boot import Fact
from attestation.core.claims import Boot
from attestation.core.document import BaselineEntry
from attestation.core.oddities import Oddity
from attestation.core.reference import ByEvents, ByValue, Rule
from attestation.core.words import EventWords, describe
from attestation.models import Attestation, Attester, Baseline, Component, HostGroup, PolicyDraft, PolicyVersion
from attestation.policy import baseline_log
from attestation.reads import baselines
from attestation.stored import boot_of

NO_WORDS = EventWords("", "", proved=False)


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """An accepted digest with what is known of it; no name where no log and no host has shown it."""

    digest: str
    words: EventWords


@dataclass(frozen=True, slots=True)
class ReadableRule:
    """What a baseline asks of one PCR: values, or places with their events and events that may be anywhere."""

    pcr: int
    meaning: str
    values: tuple[str, ...]
    places: tuple[tuple[AcceptedEvent, ...], ...]
    anywhere: tuple[AcceptedEvent, ...]

    @property
    def by_events(self) -> bool:
        return not self.values

    @property
    def alternatives(self) -> int:
        """How many places accept more than one event."""
        return sum(len(place) > 1 for place in self.places)


@dataclass(frozen=True, slots=True)
class Pinned:
    """Which PCRs a baseline pins by events, and which by value."""

    by_events: tuple[int, ...]
    by_value: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """A baseline in the list: how it pins, and when it counts; no time when no policy in force names it."""

    baseline: Baseline
    pinned: Pinned
    time: BaselineEntry | None


@dataclass(frozen=True, slots=True)
class Added:
    """What an amended baseline accepts of one PCR that the one before it did not."""

    pcr: int
    values: tuple[str, ...] = ()
    events: tuple[AcceptedEvent, ...] = ()
    anywhere: tuple[AcceptedEvent, ...] = ()  # those of the events that have no place
    freed: tuple[AcceptedEvent, ...] = ()  # events that need not be there any more


@dataclass(frozen=True, slots=True)
class Step:
    """One baseline in a line of amendments, and what it brought."""

    baseline: Baseline
    added: tuple[Added, ...]


@dataclass(frozen=True, slots=True)
class Proofs:
    """What the log of a baseline proves, what it leaves open, and what is odd about it."""

    facts: tuple[tuple[str, Fact], ...]
    unproven: tuple[str, ...]
    oddities: tuple[Oddity, ...]


def listed(*, now: datetime) -> list[Listed]:
    """Return every baseline, by name, newest first."""
    times = times_of_baselines(now=now)
    return [Listed(row, pinned(row), times.get(str(row.pk))) for row in baselines()]


def pinned(baseline: Baseline) -> Pinned:
    rules = sorted(baseline.rules().items())
    by_events = tuple(pcr for pcr, rule in rules if isinstance(rule, ByEvents))
    return Pinned(by_events, tuple(pcr for pcr, rule in rules if not isinstance(rule, ByEvents)))


def rules_of(baseline: Baseline) -> tuple[ReadableRule, ...]:
    """Return a baseline's rules, PCR by PCR, with words for every event that anything is known of."""
    rules = baseline.rules()
    words = _words(baseline, rules)
    return tuple(_readable(pcr, rule, words) for pcr, rule in sorted(rules.items()))


def _readable(pcr: int, rule: Rule, words: Mapping[tuple[int, bytes], EventWords]) -> ReadableRule:
    meaning = MEANING.get(pcr, "")
    if isinstance(rule, ByValue):
        return ReadableRule(pcr, meaning, tuple(sorted(value.hex() for value in rule.values)), (), ())
    places = tuple(_accepted(pcr, place, words) for place in rule.required)
    return ReadableRule(pcr, meaning, (), places, _accepted(pcr, rule.accepted - rule.placed, words))


def _accepted(
    pcr: int, digests: Iterable[bytes], words: Mapping[tuple[int, bytes], EventWords]
) -> tuple[AcceptedEvent, ...]:
    return tuple(AcceptedEvent(digest.hex(), words.get((pcr, digest), NO_WORDS)) for digest in sorted(digests))


def _words(baseline: Baseline, rules: Mapping[int, Rule]) -> dict[tuple[int, bytes], EventWords]:
    """What accepted events are, from the logs that the baseline was made of, else from what hosts have shown."""
    accepted = {(pcr, digest) for pcr, rule in rules.items() if isinstance(rule, ByEvents) for digest in rule.accepted}
    if not accepted:
        return {}
    events = [*baseline_log(baseline)]
    for source in sources_of(baseline):
        if source.pk != baseline.captured_from_id:
            events += boot_of(source).events
    found = {(event.pcr, event.digest): event for event in reversed(events) if (event.pcr, event.digest) in accepted}
    words = {key: describe(event) for key, event in found.items()}
    unknown = {digest.hex(): (pcr, digest) for pcr, digest in accepted - words.keys()}
    for seen in Component.objects.filter(pk__in=unknown):
        words[unknown[seen.digest]] = EventWords(seen.name, seen.text, seen.proved)
    return words


def sources_of(baseline: Baseline) -> list[Attestation]:
    """Return the attestations whose measurements a baseline has, in their order."""
    found = Attestation.objects.select_related("attester").defer("evidence", "findings").in_bulk(baseline.sources)
    return [found[pk] for pk in baseline.sources if pk in found]


def amendments_of(baseline: Baseline) -> tuple[Step, ...]:
    """Return the line of amendments that led to a baseline, newest first, each with what it brought."""
    words = _words(baseline, baseline.rules())
    steps: list[Step] = []
    each: Baseline | None = baseline
    while each is not None and len(steps) < MOST_STEPS:
        before = each.amends
        steps.append(Step(each, () if before is None else brought(before.rules(), each.rules(), words)))
        each = before
    return tuple(steps)


MOST_STEPS = 20


def brought(
    before: Mapping[int, Rule], after: Mapping[int, Rule], words: Mapping[tuple[int, bytes], EventWords]
) -> tuple[Added, ...]:
    """Return what rules accept more than those before them, PCR by PCR."""
    return tuple(_added(pcr, before[pcr], rule, words) for pcr, rule in sorted(after.items()) if before[pcr] != rule)


def _added(pcr: int, before: Rule, after: Rule, words: Mapping[tuple[int, bytes], EventWords]) -> Added:
    if isinstance(before, ByValue) and isinstance(after, ByValue):
        return Added(pcr, values=tuple(sorted(value.hex() for value in after.values - before.values)))
    if isinstance(before, ByEvents) and isinstance(after, ByEvents):
        more = after.accepted - before.accepted
        return Added(
            pcr,
            events=_accepted(pcr, more, words),
            anywhere=_accepted(pcr, more - after.placed, words),
            freed=_accepted(pcr, before.placed - after.placed, words),
        )
    return Added(pcr)


def amended_by(baseline: Baseline) -> Baseline | None:
    """Return the approved baseline that took this one's place, if an amendment did."""
    return Baseline.objects.filter(amends=baseline, state=Baseline.State.APPROVED).first()


def proofs_of(baseline: Baseline) -> Proofs | None:
    """Say what the log of a baseline proves; None for one without a log."""
    boot = _boot(baseline)
    if boot is None:
        return None
    facts = tuple((name, fact) for name, fact in boot.facts.items() if fact is not None)
    return Proofs(facts, tuple(name for name, fact in boot.facts.items() if fact is None), boot.oddities)


def _boot(baseline: Baseline) -> Boot | None:
    log = baseline.event_log
    if log is None:
        return None
    values = {int(pcr): bytes.fromhex(value) for pcr, value in baseline.explained_pcrs.items()}
    return memory.boot(log.pk, values, lambda: bytes(log.content))


def times_of_baselines(*, now: datetime) -> dict[str, BaselineEntry]:
    """Return, by id, when each baseline counts that a group's policy in force names."""
    newest = PolicyVersion.objects.filter(group=OuterRef("pk"), effective_at__lte=now).order_by("-version")
    numbers = HostGroup.objects.annotate(newest=Subquery(newest.values("version")[:1])).values("newest")
    versions = PolicyVersion.objects.filter(pk__in=numbers)
    return {entry.id: entry for version in versions for entry in version.content().baselines}


def drafts_naming(baseline: Baseline) -> list[PolicyDraft]:
    """Return the changes of the group's policy that are under way and name a baseline."""
    states = (PolicyDraft.State.DRAFT, PolicyDraft.State.PROPOSED)
    found = PolicyDraft.objects.filter(group=baseline.group_id, state__in=states)
    return [draft for draft in found if any(each.id == str(baseline.pk) for each in draft.content().baselines)]


def drafted_in(draft: PolicyDraft) -> list[Baseline]:
    """Return the baselines that a change of policy brings with it: nobody has decided about them alone."""
    named = [each.id for each in draft.content().baselines]
    return list(baselines().filter(pk__in=named, state=Baseline.State.DRAFTED))


def meaning_of(pcr: int) -> str:
    """Say what is measured into a PCR."""
    return MEANING.get(pcr, "")


def newest_of(names: Iterable[str]) -> dict[str, int]:
    """Return the newest verified attestation of each approved host of these names."""
    wanted = list(dict.fromkeys(names))
    hosts = Attester.objects.filter(name__in=wanted, state=Attester.State.APPROVED)
    verified = Attestation.objects.filter(attester=OuterRef("pk"), code="", event_log__isnull=False).order_by("-pk")
    rows = hosts.annotate(newest=Subquery(verified.values("pk")[:1])).values_list("name", "newest")
    return {name: newest for name, newest in rows if newest is not None}
