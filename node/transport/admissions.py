"""Who may open a connection now: proofs that were given at the door, each good for one connection."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

from msgspec import Struct

GRANT_S = 10.0
"""A peer must connect within this time after its proof."""
MAX_GRANTS_A_HOST = 64
REFUSED_S = 60.0
"""A key whose messages were of no use opens no connection for this long."""
MAX_REFUSED = 1024
"""Most keys that are refused; beyond them, the one that was refused longest ago is forgotten."""
MAX_GRANTS = 1024
"""Most proofs that are not used yet; only members can give one."""


class Grant(Struct, frozen=True):
    """Permission to open one connection from this host to this port, until a time."""

    curve_key: bytes
    until: float


class Admissions:
    """Grants by port and host, and the CURVE keys behind them. Times are monotonic seconds; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: OrderedDict[tuple[str, str], deque[Grant]] = OrderedDict()
        self._keys: OrderedDict[bytes, float] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        """Until when, by CURVE key."""

    def grant(self, plane: str, host: str, curve_key: bytes, now: float) -> bool:
        """Let the next connection from a host in; returns False where too many are expected already, or the key is
        refused for now."""
        with self._lock:
            self._expire(now)
            if curve_key in self._refused:
                return False
            of_host = self._grants.get((plane, host), deque())
            if len(of_host) >= MAX_GRANTS_A_HOST or sum(map(len, self._grants.values())) >= MAX_GRANTS:
                return False
            of_host.append(Grant(curve_key, now + GRANT_S))
            self._grants[plane, host] = of_host
            self._grants.move_to_end((plane, host))
            self._keys[curve_key] = now + GRANT_S
            self._keys.move_to_end(curve_key)
            return True

    def enter(self, plane: str, host: str, now: float) -> bytes | None:
        """A connection comes from a host: returns the CURVE key whose proof lets it in, and uses the proof up; None
        where there is no proof."""
        with self._lock:
            self._expire(now)
            of_host = self._grants.get((plane, host))
            if not of_host:
                return None
            grant = of_host.popleft()
            if not of_host:
                del self._grants[plane, host]
            return grant.curve_key

    def admits(self, curve_key: bytes, now: float) -> bool:
        """Whether the owner of a key proved a moment ago that it is a member; ZAP asks this."""
        with self._lock:
            return self._keys.get(curve_key, 0.0) > now

    def refuse(self, curve_key: bytes, now: float) -> None:
        """Let no connection of this key in for a while."""
        with self._lock:
            self._keys.pop(curve_key, None)
            self._refused[curve_key] = now + REFUSED_S
            self._refused.move_to_end(curve_key)
            if len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)

    def _expire(self, now: float) -> None:
        """The oldest come first, so what has run out is at the front."""
        for place in list(self._grants):
            of_host = self._grants[place]
            while of_host and of_host[0].until <= now:
                of_host.popleft()
            if not of_host:
                del self._grants[place]
        for by_key in (self._keys, self._refused):
            while by_key and next(iter(by_key.values())) <= now:
                by_key.popitem(last=False)
