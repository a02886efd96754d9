"""Which addresses of this node others can dial. An address is confirmed once a peer has come in through it.

Candidates are the addresses of this device's interfaces and the hosts at which peers see it. Each is asked about
(`protocol.finding.dialback`) with peers that see this node at that very host, since a peer dials back no other.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct, field

from protocol.finding.dialback import DialBack, host_of
from protocol.identity import PeerId
from protocol.limits import MAX_ADDRESSES
from protocol.multiaddr import Multiaddr

ASK_TIMEOUT_S = 10.0
"""A peer that has not dialled back within this time has failed."""
ASK_AGAIN_S = 5.0
"""Pause before a peer is asked again about an address that it could not dial; doubled each time."""
ASK_BUSY_S = 2.0
"""Pause before a peer that had too much to do is asked again."""
ASK_AGAIN_MAX_S = 3600.0
CONFIRM_AGAIN_S = 600.0
"""A confirmed address is asked about again after this."""
FAILURES_TO_DROP = 2
"""A confirmed address that fails this many times in a row is no longer confirmed."""


class Ask(Struct, frozen=True):
    """Send this to the peer."""

    peer: PeerId
    request: DialBack


class _Question(Struct, frozen=True):
    """A request that was sent and is not answered yet."""

    peer: PeerId
    nonce: bytes
    ends_at: float


class _Candidate(Struct):
    """One address that may lead here."""

    address: Multiaddr
    own: bool
    """Whether an interface of this device has it; else peers named it."""
    confirmed_at: float | None = None
    failures: int = 0
    """In a row."""
    question: _Question | None = None
    pauses: dict[PeerId, tuple[float, float]] = field(default_factory=dict)
    """For peers that failed: when to ask again, and the pause after that."""

    @property
    def host(self) -> str:
        return str(host_of(self.address.host))

    def is_due(self, now: float) -> bool:
        fresh = self.confirmed_at is not None and not self.failures and now < self.confirmed_at + CONFIRM_AGAIN_S
        return self.question is None and not fresh

    def confirm(self, now: float) -> bool:
        """Somebody came in through it; returns whether that is news."""
        fresh = self.confirmed_at is None
        self.confirmed_at, self.failures, self.question = now, 0, None
        self.pauses.clear()
        return fresh

    def postpone(self, peer: PeerId, now: float) -> None:
        pause_s = self.pauses.get(peer, (0.0, ASK_AGAIN_S))[1]
        self.pauses[peer] = (now + pause_s, min(2 * pause_s, ASK_AGAIN_MAX_S))
        self.question = None

    def fail(self, now: float) -> bool:
        """A request failed; returns whether the address is no longer confirmed because of it."""
        assert self.question is not None
        self.postpone(self.question.peer, now)
        self.failures += 1
        dropped = self.confirmed_at is not None and self.failures >= FAILURES_TO_DROP
        if dropped:
            self.confirmed_at = None
        return dropped


class Reachability:
    """The state of one node. Time and nonces are passed in; its driver calls it from one thread."""

    def __init__(self) -> None:
        self._candidates: dict[str, _Candidate] = {}
        self._seen_at: dict[PeerId, str] = {}
        """Where each connected peer sees this node."""

    def confirmed(self) -> tuple[Multiaddr, ...]:
        """Addresses by which others can dial this node."""
        found = [c.address for c in self._candidates.values() if c.confirmed_at is not None]
        return tuple(found)[:MAX_ADDRESSES]

    def unconfirmed(self) -> tuple[Multiaddr, ...]:
        """Addresses of this device through which nobody has come in yet."""
        return tuple(c.address for c in self._candidates.values() if c.own and c.confirmed_at is None)

    def listening(self, addresses: Collection[Multiaddr]) -> None:
        """The addresses of this device's interfaces now; those that it no longer has are forgotten."""
        texts = {str(address) for address in addresses}
        for text in [text for text, known in self._candidates.items() if known.own and text not in texts]:
            del self._candidates[text]
        for address in addresses:
            self._add(address, own=True)

    def seen_at(self, now: float, peer: PeerId, host: str, port: int, came_in: bool) -> bool:
        """A connected peer says at which host it sees this node, which listens on `port`.

        Where the peer itself dialled and the host is one of this device's, its link is all the proof that is needed.

        Returns:
            Whether an address is newly confirmed.
        """
        found = host_of(host)
        if found is None or found.is_unspecified or found.is_multicast or found.is_loopback or not port:
            return False
        self._seen_at[peer] = str(found)
        own = [known for known in self._candidates.values() if known.host == str(found) and known.own]
        if not own:
            self._add(Multiaddr(f"ip{found.version}", str(found), port), own=False)
        return any([known.confirm(now) for known in own if came_in])

    def gone(self, peer: PeerId) -> None:
        """No link to this peer is left."""
        self._seen_at.pop(peer, None)
        seen = set(self._seen_at.values())
        for text, known in list(self._candidates.items()):
            known.pauses.pop(peer, None)
            if not known.own and known.confirmed_at is None and known.host not in seen:
                del self._candidates[text]

    def due(self, now: float, nonces: Collection[bytes]) -> list[Ask]:
        """Requests to be sent now, at most one for each of `nonces`, which are random."""
        free, asks = list(nonces), []
        for candidate in self._candidates.values():
            if not free or not candidate.is_due(now):
                continue
            able = (peer for peer, host in self._seen_at.items() if host == candidate.host)
            ready = [peer for peer in able if candidate.pauses.get(peer, (0.0, 0.0))[0] <= now]
            if ready:
                candidate.question = _Question(ready[0], free.pop(), now + ASK_TIMEOUT_S)
                asks.append(Ask(ready[0], DialBack(str(candidate.address), candidate.question.nonce)))
        return asks

    def expire(self, now: float) -> bool:
        """Requests without an answer in time fail; returns whether an address is no longer confirmed."""
        late = [c for c in self._candidates.values() if c.question is not None and c.question.ends_at <= now]
        return any([candidate.fail(now) for candidate in late])

    def arrived(self, now: float, peer: PeerId, nonce: bytes) -> bool:
        """A nonce came over a link that this peer opened; returns whether an address is newly confirmed."""
        candidate = self._asked(peer, nonce)
        return candidate is not None and candidate.confirm(now)

    def failed(self, now: float, peer: PeerId, nonce: bytes) -> bool:
        """The peer says that it could not dial; returns whether an address is no longer confirmed."""
        candidate = self._asked(peer, nonce)
        return candidate is not None and candidate.fail(now)

    def refused(self, now: float, peer: PeerId, is_busy: bool) -> None:
        """The peer does not serve the request, so nothing is known. A peer that was only busy is asked again soon."""
        for candidate in self._candidates.values():
            if candidate.question is None or candidate.question.peer != peer:
                continue
            if is_busy:
                candidate.question = None
                candidate.pauses[peer] = (now + ASK_BUSY_S, ASK_AGAIN_S)
            else:
                candidate.postpone(peer, now)

    def _add(self, address: Multiaddr, own: bool) -> None:
        known = self._candidates.get(str(address))
        if known is not None:
            known.own = known.own or own
            return
        if sum(other.own == own for other in self._candidates.values()) < MAX_ADDRESSES:
            self._candidates[str(address)] = _Candidate(address, own)

    def _asked(self, peer: PeerId, nonce: bytes) -> _Candidate | None:
        for candidate in self._candidates.values():
            question = candidate.question
            if question is not None and question.peer == peer and question.nonce == nonce:
                return candidate
        return None
