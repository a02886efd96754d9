"""Fetching blobs by hash from several sources at once: a state machine, with the clock and the wire outside.

A piece is verified against the outline that its own source stated before it is written, so a source that sends
anything else is caught at that piece. An outline itself is only believed for the time being: when the whole blob does
not have its hash, everybody who stated this outline lied, and when it has, everybody who stated another one did. No
honest source is ever accused, and every round that fails costs at least one liar.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct

from protocol.identity import PeerId
from protocol.limits import PIECE_BYTES
from protocol.message import Cancel, ErrorCode, ErrorReply, Message
from protocol.transfer.actions import Action, Begin, Check, Drop, Send, Verdict, Wanted, Write
from protocol.transfer.blob import Blob, BlobState
from protocol.transfer.choice import fetch_order, overdue_piece
from protocol.transfer.messages import BlobAsk, BlobOutline, Credit, PieceAsk, PieceSlice, TransferMessage
from protocol.transfer.source import Ask, Source


class FetchConfig(Struct, frozen=True):
    """Tunables; none of them is part of the protocol."""

    window_bytes: int = 4 * PIECE_BYTES
    """Credit of a source: most bytes on their way. More credit hides longer round trips and takes more memory."""
    active_blobs: int = 8
    """Most blobs that are fetched at one time."""
    claim_wait_s: float = 1.0
    """Wait for the outlines of other sources after the first outline of a blob, so that a single liar is outvoted."""
    stall_s: float = 10.0
    """A source that owes something and is silent for this long: its pieces are asked of others."""
    max_stalls: int = 3
    """In a row; then the source is dropped."""
    pause_s: float = 1.0
    """After EXHAUSTED."""


class Fetch:
    """All blobs that are wanted, all sources. Every call may leave actions, which `take_actions` hands over."""

    def __init__(self, config: FetchConfig | None = None) -> None:
        self.config = config or FetchConfig()
        self._blobs: dict[bytes, Blob] = {}
        self._sources: dict[PeerId, Source] = {}
        self._actions: list[Action] = []

    # --- what the program says

    def want(self, wanted: Iterable[Wanted]) -> None:
        """Fetch these too, in this order."""
        for one in wanted:
            if one.sha256 not in self._blobs:
                blob = self._blobs[one.sha256] = Blob(one, len(self._blobs))
                own = blob.own_outline()
                if own is not None:
                    blob.root, blob.outlines[own.root] = own.root, own

    def forget(self, hashes: Collection[bytes]) -> None:
        """These are not wanted any more."""
        for sha256 in hashes:
            blob = self._blobs.pop(sha256, None)
            for source in self._sources.values() if blob is not None else ():
                for message_id in [known for known, ask in source.asks.items() if ask.sha256 == sha256]:
                    self._cancel(source, message_id)

    def source_up(self, peer_id: PeerId, holds: Collection[bytes], first_id: int, now: float) -> None:
        """A connection to a peer stands (again)."""
        self.source_down(peer_id)
        source = Source(peer_id, first_id, self.config.window_bytes, set(holds), now)
        self._sources[peer_id] = source
        source.granted_bytes = source.announced_bytes = self.config.window_bytes
        self._send(source, 0, Credit(source.granted_bytes))

    def source_holds(self, peer_id: PeerId, holds: Collection[bytes]) -> None:
        """A source announced more."""
        if peer_id in self._sources:
            self._sources[peer_id].holds |= set(holds)

    def source_down(self, peer_id: PeerId) -> None:
        """A connection is gone, with all that was asked over it."""
        source = self._sources.pop(peer_id, None)
        if source is not None:
            self._release(source)

    def have(self, sha256: bytes, pieces: Collection[int]) -> None:
        """What the disk holds of a blob that was begun, or that was found damaged."""
        blob = self._blobs.get(sha256)
        if blob is None or blob.outline is None or blob.state is not BlobState.BEGINNING:
            return
        blob.missing = set(range(len(blob.outline.pieces))) - set(pieces)
        blob.state = BlobState.FETCHING
        self._check_if_complete(blob)

    def written(self, peer_id: PeerId, num_bytes: int) -> None:
        """A piece is on the disk: its source may send as much again."""
        source = self._sources.get(peer_id)
        if source is not None:
            source.granted_bytes += num_bytes
            if (total := source.credit_due()) is not None:
                self._send(source, 0, Credit(total))

    def checked(self, sha256: bytes, verdict: Verdict) -> None:
        """The whole blob was compared with its hash."""
        blob = self._blobs.get(sha256)
        if blob is None or blob.root is None:
            return
        stated = [peer_id for peer_id, root in blob.claimed_by.items() if root == blob.root]
        others = [peer_id for peer_id in blob.claimed_by if peer_id not in stated]
        match verdict:
            case Verdict.WHOLE:
                blob.state = BlobState.DONE
                liars = others
            case Verdict.DAMAGED:
                self._begin(blob)
                return
            case Verdict.FALSE_OUTLINE:
                blob.false_roots.add(blob.root)
                blob.root, blob.first_claim_at, blob.state = None, None, BlobState.OUTLINING
                liars = stated
        for peer_id in liars:
            blob.claimed_by.pop(peer_id)
            self._drop(peer_id, f"stated false pieces of {sha256.hex()[:16]}", lied=True)

    def receive(self, peer_id: PeerId, message_id: int, message: Message, now: float) -> None:
        """A message came from a source."""
        source = self._sources.get(peer_id)
        if source is None:
            return
        source.heard_at = now
        if isinstance(message, PieceSlice):
            source.received_bytes += len(message.data)
            if source.received_bytes > source.announced_bytes:
                self._drop(peer_id, "sent more than it had credit for", lied=False)
                return
        ask = source.asks.get(message_id)
        blob = None if ask is None else self._blobs.get(ask.sha256)
        if ask is None or blob is None:
            self._unasked(source, message_id, message)
            return
        match message:
            case BlobOutline() if ask.index is None:
                del source.asks[message_id]
                self._stated(source, blob, message, now)
            case PieceSlice() if ask.index is not None:
                self._slice(source, message_id, ask, blob, message, now)
            case ErrorReply(code, text):
                self._refused(source, message_id, code, text, now)
            case _:
                self._drop(peer_id, f"answered with {type(message).__name__} out of turn", lied=True)

    def broke_rules(self, peer_id: PeerId, reason: str) -> None:
        """A message of a source could not be read."""
        self._drop(peer_id, reason, lied=True)

    def tick(self, now: float) -> None:
        """Ask whatever can be asked now, and do not wait for ever. Call it after every batch, and now and then."""
        for source in list(self._sources.values()):
            if source.asks and now - source.heard_at > self.config.stall_s:
                self._stalled(source, now)
        active = self._active()
        for blob in active:
            self._settle(blob, now)
        for source in sorted(self._sources.values(), key=lambda source: (-source.bytes_per_s, source.peer_id)):
            self._keep_busy(source, active, now)

    def take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    # --- what the program may ask

    @property
    def is_done(self) -> bool:
        return all(blob.state is BlobState.DONE for blob in self._blobs.values())

    @property
    def unserved(self) -> list[bytes]:
        """Wanted blobs that no source holds now."""
        open_blobs = (blob for blob in self._blobs.values() if blob.state is not BlobState.DONE)
        return [blob.sha256 for blob in open_blobs if not self._num_holders(blob)]

    @property
    def sources(self) -> list[PeerId]:
        return list(self._sources)

    def owed_bytes(self, peer_id: PeerId) -> int:
        """What a source was asked for and has not sent."""
        source = self._sources.get(peer_id)
        return 0 if source is None else source.owed_bytes

    # --- blobs

    def _num_holders(self, blob: Blob) -> int:
        return sum(blob.sha256 in source.holds for source in self._sources.values())

    def _active(self) -> list[Blob]:
        """The first blobs that are not done and that somebody holds; those being compared take no place."""
        unfinished = [blob for blob in self._blobs.values() if blob.state not in (BlobState.DONE, BlobState.CHECKING)]
        ranked = ((blob, blob.wanted.level, self._num_holders(blob), blob.order) for blob in unfinished)
        return fetch_order(ranked)[: self.config.active_blobs]

    def _settle(self, blob: Blob, now: float) -> None:
        """Follow an outline once enough sources have answered; follow another where no source states it any more."""
        if blob.own_outline() is not None:
            if blob.state is BlobState.OUTLINING:
                self._begin(blob)
            return
        stated = [source.claims[blob.sha256] for source in self._sources.values() if blob.sha256 in source.claims]
        favourite = blob.favourite(stated)
        if favourite is None or blob.state is BlobState.BEGINNING or blob.root in stated:
            return
        if blob.root is None and self._is_waited_for(blob, now):
            return
        blob.root = favourite
        self._begin(blob)

    def _is_waited_for(self, blob: Blob, now: float) -> bool:
        """Whether more sources may soon say what they hold of a blob."""
        if blob.first_claim_at is not None and now - blob.first_claim_at >= self.config.claim_wait_s:
            return False
        waiting = (ask for source in self._sources.values() for ask in source.asks.values())
        return any(ask.sha256 == blob.sha256 and ask.index is None for ask in waiting)

    def _begin(self, blob: Blob) -> None:
        assert blob.outline is not None
        blob.state = BlobState.BEGINNING
        self._actions.append(Begin(blob.sha256, blob.outline))

    def _check_if_complete(self, blob: Blob) -> None:
        if not blob.missing and not blob.asked:
            blob.state = BlobState.CHECKING
            self._actions.append(Check(blob.sha256))

    # --- sources

    def _keep_busy(self, source: Source, active: list[Blob], now: float) -> None:
        if now < source.silent_until:
            return
        for blob in active:
            if blob.sha256 in source.holds and self._lacks_outline(source, blob):
                self._send(source, source.opened(Ask(blob.sha256, None, now)), BlobAsk(blob.sha256))
        while source.has_room(now) and (choice := self._choose(source, active, now)) is not None:
            self._ask_piece(source, *choice, now)

    def _lacks_outline(self, source: Source, blob: Blob) -> bool:
        if blob.own_outline() is not None or blob.sha256 in source.claims:
            return False
        return not any(ask.sha256 == blob.sha256 and ask.index is None for ask in source.asks.values())

    def _choose(self, source: Source, active: list[Blob], now: float) -> tuple[Blob, int] | None:
        """The next piece for a source: one that nobody was asked for, else one that another is too slow with."""
        usable = [blob for blob in active if blob.state is BlobState.FETCHING and self._may_give(source, blob)]
        for blob in usable:
            if blob.missing:
                return blob, min(blob.missing)
        own_piece_s = PIECE_BYTES / source.bytes_per_s if source.bytes_per_s else float("inf")
        for blob in usable:
            asked_at = {
                index: self._sources[peer_id].asks[message_id].asked_at
                for index, asked in blob.asked.items()
                for peer_id, message_id in asked.items()
                if len(asked) == 1 and peer_id != source.peer_id
            }
            index = overdue_piece(asked_at, now, own_piece_s)
            if index is not None:
                return blob, index
        return None

    @staticmethod
    def _may_give(source: Source, blob: Blob) -> bool:
        """Whether a source itself stated that it holds a blob: its pieces can then be checked against that
        statement."""
        return blob.sha256 in source.holds and (
            blob.own_outline() is not None or source.claims.get(blob.sha256) == blob.root
        )

    def _ask_piece(self, source: Source, blob: Blob, index: int, now: float) -> None:
        assert blob.outline is not None
        blob.missing.discard(index)
        message_id = source.opened(Ask(blob.sha256, index, now, blob.outline.piece_bytes(index)))
        blob.asked.setdefault(index, {})[source.peer_id] = message_id
        if len(source.asks) == 1:
            source.heard_at = now  # it owed nothing before: its silence counts from here
        self._send(source, message_id, PieceAsk(blob.sha256, index))

    def _stated(self, source: Source, blob: Blob, message: BlobOutline, now: float) -> None:
        outline = message.outline
        if message.sha256 != blob.sha256 or not blob.is_believable(outline):
            self._drop(source.peer_id, f"stated impossible pieces of {blob.sha256.hex()[:16]}", lied=True)
            return
        if outline.root in blob.false_roots or blob.claimed_by.get(source.peer_id, outline.root) != outline.root:
            self._drop(source.peer_id, f"stated false pieces of {blob.sha256.hex()[:16]}", lied=True)
            return
        source.claims[blob.sha256] = outline.root
        blob.claim(source.peer_id, outline, now)

    def _slice(self, source: Source, message_id: int, ask: Ask, blob: Blob, message: PieceSlice, now: float) -> None:
        assert ask.index is not None and blob.outline is not None
        if message.offset != len(ask.data) or len(ask.data) + len(message.data) > ask.size_bytes:
            self._drop(source.peer_id, "sent a slice that does not follow the one before", lied=True)
            return
        ask.data += message.data
        if len(ask.data) < ask.size_bytes:
            return
        del source.asks[message_id]
        if not blob.outline.fits(ask.index, ask.data):
            blob.release(ask.index, source.peer_id)
            self._drop(source.peer_id, f"sent a false piece of {blob.sha256.hex()[:16]}", lied=True)
            return
        source.delivered(ask, now)
        for peer_id, other_id in blob.asked.pop(ask.index, {}).items():
            if peer_id != source.peer_id:
                self._cancel(self._sources[peer_id], other_id)
        self._actions.append(Write(source.peer_id, blob.sha256, ask.index, ask.data))
        self._check_if_complete(blob)

    def _unasked(self, source: Source, message_id: int, message: Message) -> None:
        """Slices of a piece that was given up used credit, which is given back; others nobody asked for."""
        if not isinstance(message, PieceSlice):
            return
        if source.takes_back(message_id, len(message.data)):
            self.written(source.peer_id, len(message.data))
        else:
            self._drop(source.peer_id, "sent pieces that nobody asked for", lied=False)

    def _refused(self, source: Source, message_id: int, code: int, text: str, now: float) -> None:
        ask = source.asks.pop(message_id)
        blob = self._blobs[ask.sha256]
        if ask.index is not None:
            blob.release(ask.index, source.peer_id)
        if ask.data:
            self.written(source.peer_id, len(ask.data))
        match code:
            case ErrorCode.NOT_FOUND | ErrorCode.UNAVAILABLE:
                source.holds.discard(ask.sha256)
            case ErrorCode.EXHAUSTED | ErrorCode.NO_SESSION:
                source.silent_until = now + self.config.pause_s
                if code == ErrorCode.NO_SESSION:  # it did not hear of our credit either
                    self._send(source, 0, Credit(source.announced_bytes))
            case _:
                self._drop(source.peer_id, f"refused: {text}", lied=False)

    def _stalled(self, source: Source, now: float) -> None:
        source.stalls += 1
        if source.stalls >= self.config.max_stalls:
            self._drop(source.peer_id, f"was silent for {self.config.stall_s:g} s, again and again", lied=False)
            return
        for message_id in list(source.asks):
            self._cancel(source, message_id)
        source.heard_at = now
        source.silent_until = now + self.config.pause_s * source.stalls

    def _cancel(self, source: Source, message_id: int) -> None:
        """Give a question up. Bytes of it that have come count as used; bytes still on their way count when they
        come."""
        ask = source.asks.pop(message_id, None)
        if ask is None:
            return
        blob = self._blobs.get(ask.sha256)
        if ask.index is not None and blob is not None:
            blob.release(ask.index, source.peer_id)
        source.gave_up(message_id, ask)
        self._send(source, 0, Cancel(message_id))
        if ask.data:
            self.written(source.peer_id, len(ask.data))

    def _drop(self, peer_id: PeerId, reason: str, lied: bool) -> None:
        self.source_down(peer_id)
        if lied:
            for blob in self._blobs.values():
                blob.claimed_by.pop(peer_id, None)
        self._actions.append(Drop(peer_id, reason, lied))

    def _release(self, source: Source) -> None:
        for ask in source.asks.values():
            blob = self._blobs.get(ask.sha256)
            if ask.index is not None and blob is not None:
                blob.release(ask.index, source.peer_id)

    def _send(self, source: Source, message_id: int, message: TransferMessage | Cancel) -> None:
        self._actions.append(Send(source.peer_id, message_id, message))
