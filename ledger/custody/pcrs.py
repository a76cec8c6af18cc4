"""Which PCRs a root can be bound to. Settings name some of them, so nothing of Django is here."""

from typing import Final

BINDABLE: Final = frozenset(range(10)) | frozenset(range(11, 16))  # PCR 10 moves while a system runs (IMA)
