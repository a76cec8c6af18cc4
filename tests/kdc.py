"""What tests do in a Kerberos realm, whoever's KDC it is: begin conversations as hosts do."""

import hashlib

import gssapi
from gssapi.raw import ChannelBindings

from deploy import realm
from deploy.realm import REALM, STOP_SECONDS, clean_environment, using, wait_for

__all__ = ["BODY", "KERBEROS", "REALM", "SPNEGO", "STOP_SECONDS", "Realm", "clean_environment", "using", "wait_for"]

SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
KERBEROS = gssapi.MechType.kerberos
MUTUAL = gssapi.RequirementFlag.mutual_authentication
BODY = b'{"transport_public": "AAAA"}'


class Realm(realm.Realm):
    """A realm, and what its accounts send."""

    def begin(
        self,
        account: str | gssapi.Credentials,
        *,
        service: str = "hgs",
        body: bytes | None = BODY,
        flags: gssapi.RequirementFlag = MUTUAL,
        mech: gssapi.OID = SPNEGO,
        cache: str | None = None,
    ) -> tuple[gssapi.SecurityContext, bytes]:
        """Return a host's side of the conversation and its token; `body` None leaves the ticket unbound."""
        bound = None if body is None else ChannelBindings(application_data=hashlib.sha256(body).digest())
        context = gssapi.SecurityContext(
            name=gssapi.Name(f"HTTP@{service}.fabric.test", gssapi.NameType.hostbased_service),
            creds=self.credentials(account, cache) if isinstance(account, str) else account,
            mech=mech,
            usage="initiate",
            flags=flags,
            channel_bindings=bound,
        )
        token = context.step()
        assert token is not None
        return context, token
