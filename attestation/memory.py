"""What this process remembers so that nothing is read twice: boots by log and PCR values, files by policy.

Everything here can be made again from the database, and is when it is not there: no node needs another's memory.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Generic, TypeVar

from attestation.core.claims import BANK, IMA_PCR, Boot, read_boot, read_ima
from attestation.core.ima import START, ImaPosition, ImaReplay
from attestation.core.runtime import KnownLines, RuntimePolicy

MOST_BOOTS = 512
MOST_POLICIES = 8
MOST_LINES = 200_000

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A bounded store that forgets what was not asked for longest; threads may share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Key, value: Value) -> Value:
        with self._lock:
            self._entries[key] = value
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        return value


_boots: Recent[tuple[str, bytes], Boot] = Recent(MOST_BOOTS)
_known: Recent[str, KnownLines] = Recent(MOST_POLICIES)


def boot(digest: str, pcrs: Mapping[int, bytes], load: Callable[[], bytes]) -> Boot:
    """Return what a log proves under these values; `load` gives the log's bytes when they were not read before."""
    values = sha256(b"".join(bytes((pcr,)) + pcrs[pcr] for pcr in sorted(pcrs) if pcr != IMA_PCR)).digest()
    known = _boots.get((digest, values))
    return _boots.put((digest, values), read_boot(load(), pcrs)) if known is None else known


def known_lines(policy_id: str, policy: RuntimePolicy) -> KnownLines:
    """Return the lines that this policy has accepted so far in this process."""
    known = _known.get(policy_id)
    if known is None or known.policy is not policy:
        known = _known.put(policy_id, KnownLines(policy, BANK, MOST_LINES))
    return known


@dataclass(frozen=True, slots=True)
class RememberedLogs:
    """A host's logs, where the event log is read again only when it is new (`attestation.core.claims.Logs`)."""

    digest: str
    load: Callable[[], bytes]
    ima_log: bytes | None
    after: ImaPosition = START
    known: Mapping[bytes, bytes] | None = None

    def boot(self, pcrs: Mapping[int, bytes]) -> Boot:
        return boot(self.digest, pcrs, self.load)

    def ima(self, pcrs: Mapping[int, bytes]) -> ImaReplay | None:
        return read_ima(self.ima_log, pcrs, after=self.after, known=self.known)
