"""The WSGI door: pages and machine APIs on as many nodes as needed; websockets are `fabric.asgi`."""

import os

from django.core.wsgi import get_wsgi_application

from ledger.serving import sequence_when_serving

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fabric.settings")
application = get_wsgi_application()
sequence_when_serving()
