"""Checks of the way to the portal: name, connection, TLS, clock, and whether a Guardhouse portal is at its end."""

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from attestation.core.certificate_reader import certificate_names, find_extension, read_certificate
from attestation.errors import ParseError
from guardedhost.diagnosis.outcome import Outcome, failed, passed, skipped
from guardedhost.diagnosis.trace import PortalSeen, Trace
from guardedhost.store import HOST_KEY, KERBEROS, TPM
from kps.core.request import CLOCK_SKEW

NO_PORTAL: Final = "No portal is configured."
SPOKEN: Final = frozenset({TPM, HOST_KEY, KERBEROS})
"""The modes that this agent attests by."""

# X509_V_ERR_* of OpenSSL, x509_vfy.h.
_NOT_YET, _LAPSED, _NAMES = 9, 10, (62, 64)
_SOON: Final = timedelta(days=14)
_SET_CLOCK: Final = "Set the clock and keep it set: `timedatectl set-ntp true`, or chrony."


def dns(trace: Trace) -> Outcome:
    portal = trace.portal
    if portal is None:
        return skipped(NO_PORTAL)
    if "url" in portal.errors:
        return failed(
            portal.errors["url"],
            "The agent talks to a portal by https, and by http on this machine alone.",
            "Enrol again with the portal’s address: `guardhouse host enrol --server https://…`.",
        )
    if not portal.addresses:
        return failed(
            f"The name {portal.host} does not resolve: {portal.errors.get('dns', 'no address')}.",
            "Without its address the portal cannot be asked.",
            f"Look at /etc/resolv.conf and ask the name server: `getent hosts {portal.host}`.",
        )
    if portal.host in portal.addresses:
        return skipped(f"The portal is configured by its address, {portal.host}.")
    return passed(f"{portal.host} is {', '.join(portal.addresses)}.")


def connection(trace: Trace) -> Outcome:
    portal = trace.portal
    if portal is None or not portal.addresses:
        return skipped(NO_PORTAL if portal is None else "The portal’s address is not known.")
    if not portal.connected:
        return failed(
            f"Port {portal.port} of {portal.host} takes no connection: {portal.errors.get('connection', '')}.",
            "The portal does not run, or something between here and there blocks its port.",
            "See that the portal runs and that firewalls let this host reach it.",
        )
    return passed(f"Port {portal.port} at {portal.connected} takes the connection.")


def tls(trace: Trace) -> Outcome:
    portal = trace.portal
    if portal is None or not portal.connected:
        return skipped(NO_PORTAL if portal is None else "There is no connection.")
    if not portal.encrypted:
        return skipped("The portal is on this machine and is asked by plain HTTP.")
    shown = _shown(portal)
    if "tls" in portal.errors:
        return _tls_failed(portal, shown, trace.at)
    if shown is None:
        return skipped("The connection ended before the portal’s certificate was seen.")
    left = shown.not_valid_after_utc - trace.at
    until = f"The portal’s certificate holds until {_day(shown.not_valid_after_utc)}"
    return passed(f"{until}, in {left.days} days: renew it." if left < _SOON else f"{until}.")


def _tls_failed(portal: PortalSeen, shown: x509.Certificate | None, at: datetime) -> Outcome:
    if portal.tls_code in (_NOT_YET, _LAPSED) and shown is not None:
        begins, ends = _day(shown.not_valid_before_utc), _day(shown.not_valid_after_utc)
        return failed(
            f"The portal’s certificate holds from {begins} to {ends}; this host’s clock says {_day(at)}.",
            "Either the certificate was not renewed, or this host’s clock is wrong.",
            f"Renew the portal’s certificate, unless the clock fails as well. {_SET_CLOCK}",
        )
    if portal.tls_code in _NAMES and shown is not None:
        return failed(
            f"The certificate shown is for {_names(shown)}, not for {portal.host}.",
            "Somebody else answers there, or the portal has another name than this host was given.",
            "Enrol with the name in the certificate, or give the portal a certificate for this one.",
        )
    if portal.tls_code and shown is not None:
        trusted = portal.authorities or "the authorities that come with the agent"
        return failed(
            f"The portal’s certificate, by {certificate_names(shown)[1]}, is by nobody whom this host trusts.",
            f"This host trusts {trusted}.",
            "Enrol with the authorities of the portal: `guardhouse host enrol --ca FILE --server …`.",
        )
    return failed(
        f"TLS with {portal.host} fails: {portal.errors['tls']}.",
        "The portal does not speak TLS 1.2 or 1.3 at this port, or the file of authorities cannot be read.",
        "See that the address names the portal’s TLS port, and that the file given with --ca is PEM.",
    )


def clock(trace: Trace) -> Outcome:
    """A release request that is further off is refused (kps.core.request), and so may every certificate be."""
    portal = trace.portal
    if portal is None:
        return skipped(NO_PORTAL)
    if portal.date is None or portal.asked_at is None:
        return _clock_by_certificate(portal, trace.at)
    # The header has whole seconds, so it is half a second behind on average.
    ahead = (portal.asked_at - portal.date).total_seconds() - 0.5
    whose = "portal’s" if "tls" not in portal.errors else "clock of whoever answers (which nobody vouches for)"
    if abs(ahead) > CLOCK_SKEW:
        side = "ahead of" if ahead > 0 else "behind"
        return failed(
            f"This host’s clock is {_duration(abs(ahead))} {side} the {whose}.",
            f"Requests for keys that are off by more than {CLOCK_SKEW} seconds are refused; certificates seem lapsed.",
            _SET_CLOCK,
        )
    return passed(f"This host’s clock and the {whose} differ by {_duration(abs(ahead))}.")


def _clock_by_certificate(portal: PortalSeen, at: datetime) -> Outcome:
    shown = _shown(portal)
    if shown is None:
        return skipped("The portal has not said what time it is.")
    if not shown.not_valid_before_utc <= at <= shown.not_valid_after_utc:
        return failed(
            f"This host’s clock says {_day(at)}, when the portal’s certificate does not hold.",
            "Either the clock is wrong, or the certificate was not renewed.",
            _SET_CLOCK,
        )
    return passed("The portal has not said what time it is; its certificate holds by this host’s clock.")


def portal(trace: Trace) -> Outcome:
    seen = trace.portal
    if seen is None:
        return skipped(NO_PORTAL)
    if not seen.fabric:
        step = next(iter(seen.errors), "")
        return failed(
            f"The portal cannot be asked what it is: {seen.errors[step]}." if step else "Nobody has answered.",
            "Without the portal this host gets no certificate and no keys; machines that run go on.",
            "Mend what fails above; if nothing does, look at the portal’s log and at the address given here.",
        )
    if seen.mode not in SPOKEN:
        return failed(
            f"Hosts of {seen.fabric} attest by {seen.mode}, which this agent ({trace.agent}) cannot.",
            "The agent is older than what the fabric asks for.",
            "Install the agent of the portal’s version.",
        )
    return passed(f"Fabric {seen.fabric}, mode {seen.mode}, version {seen.version}.")


def _shown(portal: PortalSeen) -> x509.Certificate | None:
    try:
        return read_certificate(portal.shown).certificate if portal.shown else None
    except ParseError:
        return None


def _names(certificate: x509.Certificate) -> str:
    names = find_extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return certificate_names(certificate)[0] or "nobody"
    found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return ", ".join(found[:8]) or "nobody"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    if seconds < 2 * 60:
        return f"{max(seconds, 0):.0f} seconds" if seconds >= 1 else "less than a second"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"
