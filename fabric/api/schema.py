"""How the API's documentation names the ways to be somebody."""

from drf_spectacular.authentication import SessionScheme
from drf_spectacular.contrib.knox_auth_token import KnoxTokenScheme


class TokenScheme(KnoxTokenScheme):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    target_class = "fabric.api.access.ByToken"
    name = "token"


class PortalSessionScheme(SessionScheme):  # type: ignore[no-untyped-call]  # its __init_subclass__ has no types
    target_class = "fabric.api.access.BySession"
    name = "session"
