"""Who may open a connection now: proofs that were given at the door, each good for one connection."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

from msgspec import Struct

GRANT_S = 10.0
"""How soon after its proof a peer must have connected."""
MAX_GRANTS_A_HOST = 64
MAX_GRANTS = 1024
"""Proofs that were not used yet; members alone can give one."""


class Grant(Struct, frozen=True):
    """One connection may be opened to this port from this host until then."""

    curve_key: bytes
    until: float


class Admissions:
    """Grants by port and host, and the CURVE keys behind them. Times are monotonic seconds; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: OrderedDict[tuple[str, str], deque[Grant]] = OrderedDict()
        self._keys: OrderedDict[bytes, float] = OrderedDict()

    def grant(self, plane: str, host: str, curve_key: bytes, now: float) -> bool:
        """Let the next connection from a host in; False where too many are expected already."""
        with self._lock:
            self._expire(now)
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
        """A connection from a host wants in: the CURVE key whose proof lets it, used up by this; None: nobody's."""
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
        """Whether the owner of a key has proved a moment ago that it is a member (ZAP's question)."""
        with self._lock:
            return self._keys.get(curve_key, 0.0) > now

    def _expire(self, now: float) -> None:
        """The oldest come first, so what has run out is at the front."""
        for place in list(self._grants):
            of_host = self._grants[place]
            while of_host and of_host[0].until <= now:
                of_host.popleft()
            if not of_host:
                del self._grants[place]
        while self._keys and next(iter(self._keys.values())) <= now:
            self._keys.popitem(last=False)
