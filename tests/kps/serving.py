"""The portal of a test on a port of its own, for commands that speak to it as from another machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from django.db import connections
from django.test import Client


@contextmanager
def served() -> Iterator[str]:
    """Answer by the portal, within the test's own transaction; yield the address.

    Who asks waits for the answer, so that test and portal use one connection by turns.
    """
    shared = connections["default"]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            connections["default"] = shared
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = Client().post(self.path, body, content_type="application/json")
            self.send_response(answer.status_code)
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    shared.inc_thread_sharing()
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        shared.dec_thread_sharing()
