"""One fetch: the state machine of `protocol.transfer.fetch` with its sockets and its disk, in the caller's thread."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from node.errors import TransportError
from node.transfer.disk import BlobDisk
from node.transfer.jobs import Job
from node.transfer.sources import Broke, Down, Got, Sources, Up
from node.transport.registry import ConnectedPeer
from node.transport.sockets import SecureContext
from protocol.identity import PeerId
from protocol.transfer.actions import Action, Begin, Check, Drop, Send, Verdict, Wanted, Write
from protocol.transfer.fetch import Fetch

log = logging.getLogger(__name__)

TURN_S = 0.1
"""Longest pause between two checks of the time."""
REFRESH_S = 0.5
"""Pause between two checks of which peers are connected and what they hold."""
SHUNNED_S = 30.0
"""How long a source that was dropped without a lie is not asked again."""


class Holder(Struct, frozen=True):
    """A peer and the blobs that it is assumed to hold."""

    peer: ConnectedPeer
    blobs: frozenset[bytes]


Holders = Callable[[], Mapping[PeerId, Holder]]


class NoSourceError(TransportError):
    """No connected peer holds what is needed."""


class CancelledError(TransportError):
    """The user, or the end of the node, stopped the fetch."""


class Download:
    """Fetches blobs until all are here.

    Args:
        holders: gives the peers and what they hold now.
        on_whole: called when a blob is complete and in its place.
        on_liar: called with a source that lied, and how it lied.
        patience_s: how long to wait while nobody holds any of the missing blobs; None: for ever.
    """

    def __init__(
        self,
        secure: SecureContext,
        job: Job,
        disk: BlobDisk,
        holders: Holders,
        on_whole: Callable[[bytes], None] = lambda sha256: None,
        on_liar: Callable[[PeerId, str], None] = lambda peer_id, reason: None,
        patience_s: float | None = None,
    ) -> None:
        self._secure = secure
        self._job = job
        self._disk = disk
        self._holders = holders
        self._on_whole = on_whole
        self._on_liar = on_liar
        self._patience_s = patience_s
        self._fetch = Fetch()
        self._known: Mapping[PeerId, Holder] = {}
        self._shunned_until: dict[PeerId, float] = {}
        self._sizes: dict[bytes, int] = {}
        self._done: dict[bytes, int] = {}
        self._served_at = 0.0

    def run(self, wanted: Sequence[Wanted]) -> None:
        """Fetch these.

        Raises:
            CancelledError: the job was stopped.
            NoSourceError: nobody held any of the missing blobs for too long.
            ConfigError: the disk refuses.
        """
        self._sizes = {one.sha256: one.size_bytes or 0 for one in wanted}
        self._fetch.want(wanted)
        self._served_at = time.monotonic()
        sources = Sources(self._secure)
        refresh_at = 0.0
        try:
            while not self._fetch.is_done:
                now = time.monotonic()
                if now >= refresh_at:
                    self._refresh(sources, now)
                    refresh_at = now + REFRESH_S
                self._turn(sources)
                if self._job.stop.is_set():
                    raise CancelledError("the transfer was stopped; what was fetched is kept for the next time")
        finally:
            self._disk.close()
            sources.close()

    def _turn(self, sources: Sources) -> None:
        for event in sources.poll(TURN_S):
            now = time.monotonic()
            match event:
                case Up(peer_id):
                    holder = self._known.get(peer_id)
                    blobs = frozenset[bytes]() if holder is None else holder.blobs
                    self._fetch.source_up(peer_id, blobs, secrets.randbits(62), now)
                case Down(peer_id):
                    self._fetch.source_down(peer_id)
                case Got(peer_id, message_id, message):
                    self._fetch.receive(peer_id, message_id, message, now)
                case Broke(peer_id, reason):
                    self._fetch.broke_rules(peer_id, reason)
            self._obey(sources)
        self._fetch.tick(time.monotonic())
        self._obey(sources)

    def _refresh(self, sources: Sources, now: float) -> None:
        """Check which peers are connected and what they hold."""
        wanted = self._sizes.keys()
        usable = {
            peer_id: holder
            for peer_id, holder in self._holders().items()
            if holder.blobs & wanted and self._shunned_until.get(peer_id, 0.0) <= now
        }
        before, self._known = self._known, usable
        for peer_id in sources.use(holder.peer for holder in usable.values()):
            self._fetch.source_down(peer_id)
        for peer_id, holder in usable.items():
            known = before.get(peer_id)
            self._fetch.source_holds(peer_id, holder.blobs - (known.blobs if known is not None else frozenset()))
        self._job.sources = len(self._fetch.sources)
        self._job.measure()
        if self._job.sources and len(self._fetch.unserved) == 0:
            self._served_at = now
        if self._patience_s is not None and now - self._served_at > self._patience_s:
            raise NoSourceError(
                f"no peer that can be reached holds {len(self._fetch.unserved) or len(wanted)} of the parts of "
                f"{self._job.model[:16]} that are missing here: start a node that has the model, or try again later"
            )

    def _obey(self, sources: Sources) -> None:
        actions: list[Action] = self._fetch.take_actions()
        while actions:
            for action in actions:
                self._do(sources, action)
            actions = self._fetch.take_actions()

    def _do(self, sources: Sources, action: Action) -> None:
        match action:
            case Send(peer_id, message_id, message):
                sources.send(peer_id, message_id, message)
            case Begin(sha256, outline):
                present = self._disk.begin(sha256, outline)
                if not self._sizes[sha256]:
                    self._sizes[sha256] = outline.size_bytes
                    self._job.total_bytes += outline.size_bytes
                num_bytes = sum(map(outline.piece_bytes, present))
                self._job.advance(num_bytes - self._done.get(sha256, 0), fetched=False)
                self._done[sha256] = num_bytes
                self._fetch.have(sha256, present)
            case Write(peer_id, sha256, index, data):
                self._disk.write(sha256, index, data)
                self._job.advance(len(data))
                self._done[sha256] += len(data)
                self._fetch.written(peer_id, len(data))
            case Check(sha256):
                self._check(sha256)
            case Drop(peer_id, reason, lied):
                self._drop(peer_id, reason, lied)

    def _check(self, sha256: bytes) -> None:
        verdict, _present = self._disk.check(sha256)
        if verdict is not Verdict.WHOLE:
            log.warning("blob %s does not have its hash: %s", sha256.hex()[:16], verdict.value)
        self._fetch.checked(sha256, verdict)
        if verdict is Verdict.WHOLE:
            self._on_whole(sha256)

    def _drop(self, peer_id: PeerId, reason: str, lied: bool) -> None:
        log.warning("source %s %s: it is not used any more", peer_id, reason)
        self._shunned_until[peer_id] = float("inf") if lied else time.monotonic() + SHUNNED_S
        if lied:
            self._on_liar(peer_id, reason)
