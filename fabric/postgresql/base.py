"""The database backend of `settings.DATABASES`; Django looks for a `DatabaseWrapper` in a module called `base`."""

from select import POLLIN, poll

from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        """Say whether the connection stands, without asking the server where that can be seen from here.

        Django asks with a statement of its own before each request. A server that ends a connection sends word of it
        first, so an idle one on which nothing has come still stands; when something has come, Django shall ask.
        """
        wire = self.connection.pgconn
        if wire.transaction_status != TransactionStatus.IDLE:  # amid a transaction, or broken
            return super().is_usable()
        waiting = poll()
        waiting.register(wire.socket, POLLIN)
        return super().is_usable() if waiting.poll(0) else True
