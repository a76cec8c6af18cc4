"""A controller is believed when it has proved which one it is, over what nobody else can read or write, and in time."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import krb5
import ldap
import pytest

from attestation import controller as wire
from attestation import directory as room
from attestation.controller import AES, FAILURES, Connection, Controller, Login, Unanswered, said
from attestation.directory import MOST_KEPT, Account, Answer, Directory, Unreadable, _account
from attestation.errors import DirectoryUnavailable, ParseError
from tests.ad import Domain
from tests.kdc import REALM

SID = "S-1-5-21-7-8-9-1103"
HOST = bytes.fromhex("0105000000000005150000000700000008000000090000004f040000")
GROUP = bytes.fromhex("01050000000000051500000007000000080000000900000050040000")
Talk = Callable[[socket.socket], None]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(wire, "SECONDS", 0.3)
    return 0.3


@pytest.fixture
def reached(domain: Domain) -> Controller:
    """The controller of the domain."""
    if not domain.has_ldap:
        pytest.skip("the directory needs port 389: root, or net.ipv4.ip_unprivileged_port_start=389")
    return Controller(domain.address)


@pytest.fixture
def login(domain: Domain) -> Login:
    return Login("svc-hgs", REALM, str(domain.keytab("hgs")))


@pytest.fixture
def ask(login: Login) -> Iterator[Callable[..., Directory]]:
    with ExitStack() as stack:

        def begin(*controllers: Controller) -> Directory:
            made = Directory(controllers, login)
            stack.callback(made.close)
            return made

        yield begin


Ask = Callable[..., Directory]


def nobody() -> Controller:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Controller("127.0.0.1", listener.getsockname()[1])


@contextmanager
def playing(talk: Talk) -> Iterator[tuple[Controller, list[bytes]]]:
    """Play a controller that says this to the first thing that it hears; what it has heard is kept."""
    heard: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            with connected:
                connected.settimeout(10)
                try:
                    heard.append(connected.recv(65_536))
                    talk(connected)
                    connected.recv(65_536)
                except OSError:
                    pass  # the other side has had enough, as it should

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield Controller("127.0.0.1", listener.getsockname()[1]), heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join(10)


# --- who it is, and who we are


def test_both_prove_themselves_and_everything_is_encrypted(reached: Controller, login: Login, domain: Domain) -> None:
    connection = Connection(reached, login)
    assert connection._ldap.get_option(ldap.OPT_X_SASL_SSF) == 256
    found = connection.find(f"<SID={domain.sids['member$']}>", ("objectSid", "tokenGroups"))
    assert found is not None
    assert set(found) == {"objectsid", "tokengroups"}
    assert connection.find("<SID=S-1-5-21-1-2-3-4444>", ("objectSid",)) is None
    connection.close()


def test_the_ticket_is_for_this_controller_and_there_is_no_other(reached: Controller, login: Login) -> None:
    """So nothing that a DNS server says can have one made for another machine."""
    with login._cache(reached) as name:
        cache = krb5.cc_resolve(krb5.init_context(), name)
        assert [str(each.server) for each in cache] == [f"ldap/{reached.name}@{REALM}"]


def by_another_name(controller: Controller) -> Controller:
    """Return the same machine by a name that its key is not for: 127.1.2.3 as 127.1.515 (inet_aton)."""
    first, second, *rest = (int(part) for part in controller.name.split("."))
    return Controller(f"{first}.{second}.{rest[0] * 256 + rest[1]}")


def test_a_name_that_no_key_is_for_is_not_asked(reached: Controller, login: Login) -> None:
    with pytest.raises(krb5.Krb5Error, match="not found in Kerberos database"):
        Connection(by_another_name(reached), login)


def test_a_ticket_for_another_name_is_no_use(
    reached: Controller, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when libkrb5 makes another name of a host's than the one that was configured."""
    cache = Login._cache
    monkeypatch.setattr(Login, "_cache", lambda self, _: cache(self, reached))
    with pytest.raises(ldap.LDAPError, match="credential"):
        Connection(by_another_name(reached), login)


def test_no_key_is_of_rc4_however_much_the_node_likes_it(
    reached: Controller, login: Login, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    liked = "[libdefaults]\n default_tkt_enctypes = arcfour-hmac aes256-cts\n"
    configuration = domain.folder / "weak.conf"
    configuration.write_text(domain.configuration.read_text().replace("[libdefaults]\n", liked))
    monkeypatch.setenv("KRB5_CONFIG", str(configuration))
    with login._cache(reached) as name:
        (ticket,) = krb5.cc_resolve(krb5.init_context(), name)
        assert ticket.keyblock.enctype in AES
    monkeypatch.setattr(wire, "AES", (23,))
    with login._cache(reached) as name:
        (ticket,) = krb5.cc_resolve(krb5.init_context(), name)
        assert ticket.keyblock.enctype == 23  # so it would have been


def test_less_than_full_encryption_is_refused(
    reached: Controller, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LEAST_STRENGTH", 257)  # as if what Kerberos has were less than what is asked for
    with pytest.raises(ldap.AUTH_UNKNOWN, match="No worthy mechs"):
        Connection(reached, login)


def test_who_does_not_encrypt_is_not_asked(domain: Domain, reached: Controller, login: Login) -> None:
    """The controller itself answers such a question, with nothing of the account."""
    plain = wire._configured(reached)
    with pytest.raises(ldap.OPERATIONS_ERROR):
        plain.search_ext_s(f"<SID={domain.sids['member$']}>", ldap.SCOPE_BASE)
    plain.unbind_ext_s()


@pytest.mark.parametrize(
    ("account", "keytab", "why"),
    [
        pytest.param("svc-other", "hgs", "no suitable keys", id="another account"),
        pytest.param("nobody", "hgs", "no suitable keys", id="no account"),
        pytest.param("svc-hgs", "missing", "not found", id="no keytab"),
    ],
)
def test_who_has_no_key_logs_nobody_in(
    reached: Controller, domain: Domain, account: str, keytab: str, why: str
) -> None:
    with pytest.raises(krb5.Krb5Error, match=why):
        Connection(reached, Login(account, REALM, str(domain.keytab(keytab))))


def test_whoever_waits_for_a_kdc_makes_nobody_else_wait(reached: Controller, login: Login, hurried: float) -> None:
    with login.at(reached), pytest.raises(Unanswered, match="still waiting for a KDC"), login.at(reached):
        pass
    Connection(reached, login).close()


# --- time


def silent(_: socket.socket) -> None:
    pass


def half_a_message(connected: socket.socket) -> None:
    connected.sendall(b"\x30\x50\x02\x01")


def larger_than_memory(connected: socket.socket) -> None:
    connected.sendall(b"\x30\x84\x7f\xff\xff\xff")


def http(connected: socket.socket) -> None:
    connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def byte_by_byte(connected: socket.socket) -> None:
    for byte in b"\x30\x84\0\1\0\0" + bytes(1000):
        connected.sendall(bytes((byte,)))
        time.sleep(0.02)


def entries_without_end(connected: socket.socket) -> None:
    while True:
        connected.sendall(b"\x30\x09\x02\x01\x01\x64\x04\x04\x00\x30\x00")
        time.sleep(0.02)


@pytest.mark.parametrize("talk", [silent, half_a_message, larger_than_memory, http, byte_by_byte, entries_without_end])
def test_nobody_waits_longer_than_is_said_and_nobody_logs_in_there(login: Login, hurried: float, talk: Talk) -> None:
    begun = time.monotonic()
    with playing(talk) as (controller, heard):
        with pytest.raises(FAILURES) as failed:
            Connection(controller, login)
        assert time.monotonic() - begun < 4 * hurried
    assert said(failed.value) == "it has not answered within 0.3 seconds"
    assert len(heard) == 1  # the question whether it is there


def test_who_hangs_up_is_not_asked_again(login: Login) -> None:
    with playing(lambda connected: connected.shutdown(socket.SHUT_RDWR)) as (controller, heard):
        with pytest.raises(ldap.SERVER_DOWN) as failed:
            Connection(controller, login)
        assert said(failed.value).startswith("Can't contact LDAP server")
    assert len(heard) == 1


def test_a_name_that_nobody_has_is_a_failure_as_any_other(login: Login) -> None:
    with pytest.raises(ldap.SERVER_DOWN):
        Connection(Controller("dc9.invalid"), login)


# --- one after the other


def test_the_next_one_is_asked_and_then_asked_first(
    ask: Ask, reached: Controller, domain: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    gone = nobody()
    asked = ask(gone, reached)
    for _ in range(2):
        assert asked.ask(domain.sids["nested$"]).controller == reached.name
    assert [record.message.count(f"{gone.name} has given no answer") for record in caplog.records] == [1]


def test_a_connection_is_kept_and_one_that_has_ended_is_made_anew(
    ask: Ask, reached: Controller, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, sid = ask(reached), domain.sids["member$"]
    first = asked.ask(sid)
    (kept,) = asked._kept[reached]
    assert asked.ask(sid) == first
    assert list(asked._kept[reached]) == [kept]
    with socket.fromfd(kept._ldap.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
        same.shutdown(socket.SHUT_RDWR)
    assert asked.ask(sid) == first
    (anew,) = asked._kept[reached]
    assert anew is not kept
    monkeypatch.setattr(wire, "KEPT", 0.0)
    assert asked.ask(sid) == first  # over the one that is still fresh
    asked._kept[reached].clear()
    assert asked.ask(sid) == first
    assert not asked._kept[reached]


def test_many_may_ask_at_once(ask: Ask, reached: Controller, domain: Domain) -> None:
    asked, answers = ask(reached), list[Answer]()
    threads = [threading.Thread(target=lambda: answers.append(asked.ask(domain.sids["nested$"]))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    assert len({(answer.controller, answer.account) for answer in answers}) == 1
    assert len(asked._kept[reached]) <= MOST_KEPT


def test_while_nobody_answers_not_every_host_waits(ask: Ask, hurried: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with playing(silent) as (controller, heard):
        asked = ask(controller)
        for _ in range(3):
            with pytest.raises(DirectoryUnavailable):
                asked.ask(SID)
        assert len(heard) == 1
        monkeypatch.setattr(asked, "_silent_until", time.monotonic())
        with pytest.raises(DirectoryUnavailable):
            asked.ask(SID)
    assert len(heard) == 2


# --- what is said of an account


def test_an_account_is_read() -> None:
    said = {"objectsid": [HOST], "useraccountcontrol": [b"4096"], "tokengroups": [GROUP]}
    assert _account(said, SID) == Account(True, frozenset({"S-1-5-21-7-8-9-1104"}))


@pytest.mark.parametrize(
    ("control", "enabled"), [(b"4096", True), (b"4098", False), (b"2", False), (b"0", True), (b"-2147479550", False)]
)
def test_an_account_that_is_disabled_is_said_to_be(control: bytes, enabled: bool) -> None:
    said = {"objectsid": [HOST], "useraccountcontrol": [control], "tokengroups": [GROUP]}
    assert _account(said, SID).enabled is enabled


NO_ACCOUNTS: Mapping[str, Mapping[str, Sequence[bytes]]] = {
    "another account": {"objectsid": [GROUP]},
    "two SIDs": {"objectsid": [HOST, HOST]},
    "no SID": {"objectsid": []},
    "no groups": {"tokengroups": []},
    "a group that is none": {"tokengroups": [b"S-1-5-21-7-8-9-1104"]},
    "a group cut short": {"tokengroups": [GROUP[:-1]]},
    "no control": {"useraccountcontrol": []},
    "two controls": {"useraccountcontrol": [b"4096", b"4098"]},
    **{
        f"a control of {control!r}"[:40]: {"useraccountcontrol": [control]}
        for control in (b" 4096", b"4_096", b"0x1000", b"4096\n", b"\xd9\xa4", b"", b"9" * 5000)
    },
}


@pytest.mark.parametrize("changes", NO_ACCOUNTS.values(), ids=NO_ACCOUNTS)
def test_what_is_no_account_is_no_answer(changes: Mapping[str, Sequence[bytes]]) -> None:
    good = {"objectsid": [HOST], "useraccountcontrol": [b"4096"], "tokengroups": [GROUP]}
    with pytest.raises((Unreadable, ParseError)):
        _account({**good, **changes}, SID)


def test_one_account_that_cannot_be_read_does_not_silence_the_directory(
    ask: Ask, reached: Controller, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(reached)
    attributes = room._ATTRIBUTES
    monkeypatch.setattr(room, "_ATTRIBUTES", ("objectSid",))  # as a directory answers that hides the others
    with pytest.raises(DirectoryUnavailable):
        asked.ask(domain.sids["member$"])
    monkeypatch.setattr(room, "_ATTRIBUTES", attributes)
    assert asked.ask(domain.sids["member$"]).account is not None
