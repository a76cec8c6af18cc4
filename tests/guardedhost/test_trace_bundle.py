"""Traces as files: judged elsewhere as on the host, read strictly, and without a secret."""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.core.base64url import to_b64u
from attestation.errors import ParseError, TooLarge
from cli import diagnosis
from guardedhost import agent
from guardedhost.diagnosis import bundle
from guardedhost.diagnosis.bundle import read_bundle, write_bundle
from guardedhost.diagnosis.checks import diagnose
from guardedhost.diagnosis.collect import collect
from guardedhost.diagnosis.trace import LogSeen, Trace
from guardedhost.store import Store
from tests.fuzz.traces import documents
from tests.guardedhost.verifier import SECRET, Verifier

GZIP = 31


def document(trace: Trace) -> Any:
    return json.loads(zlib.decompress(write_bundle(trace), GZIP))


def packed(value: object) -> bytes:
    packer = zlib.compressobj(wbits=GZIP)
    return packer.compress(json.dumps(value).encode()) + packer.flush()


def test_a_bundle_is_judged_elsewhere_as_on_the_host(healthy: Trace) -> None:
    trace = read_bundle(write_bundle(healthy))
    assert trace == healthy
    assert diagnose(trace) == diagnose(healthy)


def test_a_host_that_fails_fails_elsewhere_with_the_same_sentences(enrolled: Verifier, store: Store) -> None:
    enrolled.passing = False
    with agent.opened(store) as host:
        agent.attest(host)
    trace = collect(store)
    assert diagnose(read_bundle(write_bundle(trace))) == diagnose(trace)
    assert "Reboot." in str(diagnose(trace))


def test_a_look_at_nothing_travels_as_well(tmp_path: Any) -> None:
    trace = collect(Store(tmp_path / "state"))
    assert read_bundle(write_bundle(trace)) == trace


def test_a_bundle_holds_no_secret(healthy: Trace, store: Store) -> None:
    credential = store.credential()
    assert credential is not None
    text = json.dumps(document(collect(store)))
    assert to_b64u(healthy.tpm.ek_public or b"") in text
    assert to_b64u(credential.certificate) in text
    for secret in (SECRET, credential.key.private):
        assert to_b64u(secret) not in text
    assert credential.release_secret not in text


Damage = Callable[[Any], Any]


def without(name: str) -> Damage:
    return lambda trace: {key: value for key, value in trace.items() if key != name}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda trace: [], id="no object"),
        pytest.param(lambda trace: {**trace, "more": 1}, id="more than a trace has"),
        pytest.param(without("tpm"), id="less than a trace has"),
        pytest.param(lambda trace: {**trace, "agent": 7}, id="number for text"),
        pytest.param(lambda trace: {**trace, "agent": None}, id="nothing for text"),
        pytest.param(lambda trace: {**trace, "at": "yesterday"}, id="no moment"),
        pytest.param(lambda trace: {**trace, "at": "2026-11-26T00:00:00"}, id="moment without a zone"),
        pytest.param(lambda trace: {**trace, "at": "2026-11-26T00:00:00+01:00"}, id="moment of another zone"),
        pytest.param(lambda trace: {**trace, "tpm": {**trace["tpm"], "reset_count": True}}, id="yes for a number"),
        pytest.param(lambda trace: {**trace, "tpm": {**trace["tpm"], "reset_count": 2**32}}, id="too large a number"),
        pytest.param(lambda trace: {**trace, "tpm": {**trace["tpm"], "reset_count": -1}}, id="negative number"),
        pytest.param(lambda trace: {**trace, "tpm": {**trace["tpm"], "ak_public": "A=="}}, id="no base64url"),
        pytest.param(lambda trace: {**trace, "tpm": {**trace["tpm"], "errors": {"open": 1}}}, id="error without words"),
        pytest.param(lambda trace: {**trace, "folder": {**trace["folder"], "files": {}}}, id="object for a list"),
        pytest.param(
            lambda trace: {**trace, "tpm": {**trace["tpm"], "quote": {**trace["tpm"]["quote"], "values": {"x": ""}}}},
            id="PCR without a number",
        ),
    ],
)
def test_a_trace_that_is_none_is_refused(healthy: Trace, damage: Damage) -> None:
    whole = document(healthy)
    with pytest.raises(ParseError, match="damaged"):
        read_bundle(packed({**whole, "trace": damage(whole["trace"])}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        packed([]),
        packed({}),
        packed({"format": "guardhouse-trace-3", "trace": {}}),
        packed({"format": bundle.FORMAT}),
        packed({"format": bundle.FORMAT, "trace": 1}),
        packed({"format": bundle.FORMAT, "trace": 1.5}),
    ],
)
def test_what_is_no_bundle_is_refused(content: bytes) -> None:
    with pytest.raises(ParseError):
        read_bundle(content)


def test_a_bundle_that_is_cut_or_continued_is_refused(healthy: Trace) -> None:
    whole = write_bundle(healthy)
    for content in (whole[:-1], whole[: len(whole) // 2], whole + b"\0", whole + whole):
        with pytest.raises(ParseError):
            read_bundle(content)


def test_a_bundle_that_unpacks_without_end_is_refused_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "DOCUMENT_LIMIT", 1 << 20)
    with pytest.raises(TooLarge):
        read_bundle(packed("x" * (1 << 24)))


def test_a_bundle_with_damaged_evidence_is_judged_and_never_fails_to_be(healthy: Trace) -> None:
    tpm = healthy.tpm
    assert tpm.quote is not None
    for size in (0, 1, 40, 400):
        junk = os.urandom(size)
        quote = replace(tpm.quote, attest=junk, signature=junk, values=dict.fromkeys(range(30), junk))
        bad = replace(tpm, ek_public=junk, ek_certificate=junk, ak_public=junk, quote=quote)
        logs = replace(healthy, boot_log=replace(healthy.boot_log, content=junk), ima_log=LogSeen("ima", junk))
        held = replace(healthy.held, certificate=junk) if healthy.held else None
        portal = replace(healthy.portal, shown=junk, signers=(junk,)) if healthy.portal else None
        for part in (replace(logs, tpm=bad, held=held, portal=portal), logs):
            assert {"boot_log"} <= set(diagnose(read_bundle(write_bundle(part))).failures)


@pytest.mark.parametrize("year", [1, 9999])
def test_any_moment_can_be_judged(healthy: Trace, year: int) -> None:
    diagnosis = diagnose(replace(healthy, at=datetime(year, 1, 1, tzinfo=UTC)))
    assert "certificate" in diagnosis.failures


STRANGE: Any = [
    *(None, True, "", [], {}, 0, -1, 2**31, 10**30, {"1": ""}, {"open": "x"}, {"tls": ""}, 10, 62),
    *("\ud800", "tpm", "kerberos", "Passed", "unreachable", "unauthorized_host", "A" * 43, "MAAA"),
    *("0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from places(each, (*path, key))


@settings(max_examples=300, deadline=None, database=None)
@given(st.data())
def test_whatever_a_bundle_says_is_refused_or_judged_and_shown(data: st.DataObject) -> None:
    document = json.loads(data.draw(st.sampled_from(documents())))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(list(places(document["trace"]))))
        inner = document["trace"]
        for step in way:
            inner = inner[step]
        inner[last] = deepcopy(data.draw(st.sampled_from(STRANGE)))  # what is put in may be changed next
    try:
        trace = read_bundle(packed(document))
    except ParseError:
        return
    found = diagnose(trace)
    json.dumps(diagnosis.fields(trace, found))
    diagnosis.table(trace, found).encode()
