"""The WSGI door: pages and machine APIs on as many nodes as needed; websockets are `fabric.asgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fabric.settings")
application = get_wsgi_application()  # loads the apps

from ledger.sequencer import start_when_serving  # noqa: E402  (needs loaded apps)

start_when_serving()
