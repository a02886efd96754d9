"""The devices of a session: reads what they send, and leaves those that lie or flood."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from node.execution.interrupt import Interrupt
from node.execution.ledger import ChunkCounts
from node.execution.mailbox import Mailbox
from node.execution.peer import PeerStatus
from node.spans.device import DeviceError, Flight, SpanDevice
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.link.messages import Pong
from protocol.message import ErrorCode, ErrorReply
from protocol.spans.messages import SpanResult

log = logging.getLogger(__name__)

Arrival = tuple[SpanDevice, Flight, SpanResult]


class CacheGoneError(Exception):
    """A device has lost a cache."""

    def __init__(self, device: SpanDevice) -> None:
        super().__init__()
        self.device = device


class Crew:
    """Only the session's thread uses it.

    Args:
        counts: gets what was refused.
    """

    def __init__(self, interrupt: Interrupt | None, counts: ChunkCounts) -> None:
        self.devices: list[SpanDevice] = []
        """All that ever took part."""
        self._counts = counts
        self._mailbox = Mailbox()
        if interrupt is not None:
            self._mailbox.wake_by(interrupt.fd)

    def join(self, device: SpanDevice) -> None:
        """Listen to a device, unless it is here already."""
        if device not in self.devices:
            self.devices.append(device)
            self._mailbox.add(device.peer)

    def hear(self, timeout_s: float) -> Iterator[Arrival]:
        """Wait for messages; yields the results of steps under way.

        Raises:
            DeviceError: a device cannot go on.
            CacheGoneError: a device has lost a cache.
        """
        for peer in self._mailbox.wait(timeout_s):
            device = next(device for device in self.devices if device.peer is peer)
            try:
                for received in self._mailbox.read(peer):
                    result = self._answer(device, received.id, received.message)
                    if result is not None:
                        yield result
            except RemoteProtocolError as exc:
                log.warning("a message of %s cannot be read and counts as a lie: %s", peer.peer_id, exc)
                self.ban(device)
                raise DeviceError(device, "it sent what is no message") from exc
            if device.is_noisy:
                log.warning("%s sends what nobody asked for: it is left for this session", peer.peer_id)
                peer.status = PeerStatus.SHUT
                self._hang_up(device)
                raise DeviceError(device, "it sent too much that nobody asked for")
            if self._mailbox.has_news(peer) and peer.channel.notice_losses():
                device.forget_caches()
                if device.flights:
                    raise DeviceError(device, "its connection broke")

    def check_alive(self) -> None:
        """Raises DeviceError for a device that owes a result and is silent."""
        for device in self.devices:
            device.check_alive()

    def ban(self, device: SpanDevice) -> None:
        """Its result was wrong: it gets nothing more."""
        self._counts.rejected += 1
        device.peer.ban()
        self._hang_up(device)

    def doubt(self, peer_id: PeerId) -> None:
        """Another device computed another result, and nobody can tell which is wrong: it gets nothing more."""
        for device in self.devices:
            if device.peer_id == peer_id and not device.peer.gone:
                device.peer.status = PeerStatus.DOUBTED
                self._hang_up(device)

    def close_ended(self) -> None:
        """End the caches of texts that have ended."""
        for device in self.devices:
            if device.is_usable:
                device.close_ended()

    def cancel(self) -> None:
        """Nothing that is under way is wanted."""
        for device in self.devices:
            device.cancel()

    def close(self) -> None:
        """End all caches and connections."""
        for device in self.devices:
            device.close()

    def _hang_up(self, device: SpanDevice) -> None:
        device.cancel()
        self._mailbox.remove(device.peer)
        device.peer.channel.close()

    def _answer(self, device: SpanDevice, message_id: int, message: object) -> Arrival | None:
        """What a message means; a late answer to what was cancelled means nothing."""
        opened, asked = message_id in device.opens, message_id in device.flights
        device.heard(message_id, opened or asked or isinstance(message, Pong))
        device.opens.discard(message_id)
        if isinstance(message, SpanResult) and asked:
            return device, device.flights.pop(message_id), message
        if not isinstance(message, ErrorReply) or not (opened or asked):
            return None
        if message.code in (ErrorCode.NO_CACHE, ErrorCode.CANCELLED):
            raise CacheGoneError(device)
        raise DeviceError(device, message.text or f"it refused with error {message.code}")
