"""The ASGI door: everything that WSGI serves, and the live channel of the portal."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

from ledger.serving import sequence_when_serving

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fabric.settings")
pages = get_asgi_application()  # loads the apps; consumers may be imported only after it

from fabric.consumers import FleetConsumer  # noqa: E402  (needs loaded apps)

sequence_when_serving()

application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter([path("ws/fleet/", FleetConsumer.as_asgi())]))
        ),
    }
)
