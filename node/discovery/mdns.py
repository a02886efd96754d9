"""Multicast DNS: announces this node to its local network and finds others of its swarm.

zeroconf's thread listens to the network, and a browser thread reads the results; nothing here delays other parts. It
uses only the interfaces on which the node listens, so a node on loopback announces nothing. Every failure becomes a
note, because a node without multicast still has other ways to find peers.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import ClassVar

from msgspec import Struct
from zeroconf import Error, IPVersion, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from node.discovery.addresses import lan_hosts
from protocol.discreet import Discreet
from protocol.errors import AddressError
from protocol.finding.announcement import ANNOUNCEMENT_NONCE_BYTES, SERVICE_TYPE, announce, read_announcement
from protocol.identity import PeerId, peer_id_of
from protocol.limits import MAX_ADDRESSES
from protocol.multiaddr import Multiaddr, parse_multiaddr

log = logging.getLogger(__name__)

LOOKUP_TIMEOUT_MS = 2000
MAX_FOUND = 256
"""Most other nodes that are remembered; a network with more of them is an attack."""
INSTANCE_BYTES = 6
MAX_ROUNDS_BETWEEN = 12
"""A found member is reported again at least every so many calls of `update`."""


class LanIdentity(Discreet, Struct, frozen=True):
    """Who announces, and for which swarm."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("swarm_key",)
    public_key: bytes
    swarm_key: bytes | None

    @property
    def peer_id(self) -> PeerId:
        return peer_id_of(self.public_key)


class LanDiscovery:
    """Multicast DNS of one node. It calls `found`, in its own thread, with every address of a member.

    It never raises: `note` says why it is off or what is missing.
    """

    def __init__(self, me: LanIdentity, found: Callable[[Multiaddr], None]) -> None:
        self._me = me
        self._found = found
        self._lock = threading.Lock()
        self._zeroconf: Zeroconf | None = None
        self._ears: _Ears | None = None
        self._addresses: tuple[Multiaddr, ...] = ()
        self.note = "it was not started"

    @property
    def is_on(self) -> bool:
        return self._zeroconf is not None

    def update(self, addresses: Sequence[Multiaddr]) -> None:
        """Announce these addresses from now on, on their interfaces; without any local address it is off.

        This is called at intervals; it also reports found members again that may not have been reached.
        """
        usable = tuple(address for address in addresses if lan_hosts([address]))
        with self._lock:
            if usable == self._addresses and (self.is_on or not usable):
                if self._ears is not None:
                    self._ears.remind()
                return
            self._stop()
            self._addresses = usable
            if not usable:
                self.note = "the node listens on no address of a local network"
                return
            try:
                self._start(usable)
            except (OSError, Error, RuntimeError, ValueError) as exc:
                self._stop()
                self.note = f"multicast is not possible here: {exc or type(exc).__name__}"
                log.info("mDNS is off: %s", self.note)

    def stop(self) -> None:
        """Say goodbye to the network."""
        with self._lock:
            self._stop()
            self._addresses = ()
            self.note = "it was stopped"

    def _start(self, addresses: tuple[Multiaddr, ...]) -> None:
        hosts = lan_hosts(addresses)
        versions = {address.protocol for address in addresses}
        version = IPVersion.All if len(versions) > 1 else IPVersion.V6Only if "ip6" in versions else IPVersion.V4Only
        self._zeroconf = Zeroconf(interfaces=list(hosts), ip_version=version)
        # A random name, new with every start, that identifies neither the host nor the node.
        instance = secrets.token_hex(INSTANCE_BYTES)
        nonce = secrets.token_bytes(ANNOUNCEMENT_NONCE_BYTES)
        info = ServiceInfo(
            SERVICE_TYPE,
            f"{instance}.{SERVICE_TYPE}",
            port=addresses[0].port,
            properties=dict(announce(self._me.public_key, self._me.swarm_key, nonce)),
            server=f"{instance}.local.",
            parsed_addresses=list(hosts),
        )
        # The name is random, so nobody else has it; checking that first would only take a second.
        self._zeroconf.register_service(info, cooperating_responders=True)
        self._ears = _Ears(self._me, self._found)
        ServiceBrowser(self._zeroconf, SERVICE_TYPE, listener=self._ears)
        self.note = f"announced on {', '.join(hosts)}"
        log.info("mDNS is on: %s", self.note)

    def _stop(self) -> None:
        zeroconf, self._zeroconf, self._ears = self._zeroconf, None, None
        if zeroconf is not None:
            with contextlib.suppress(OSError, Error, RuntimeError):
                zeroconf.close()


class _Known(Struct):
    """A found member, and when to report it again, counted in calls of `update`."""

    addresses: tuple[Multiaddr, ...]
    rounds: int = 0
    next_round: int = 1


class _Ears(ServiceListener):
    """Reads what others announce."""

    def __init__(self, me: LanIdentity, found: Callable[[Multiaddr], None]) -> None:
        self._me = me
        self._found = found
        self._known: dict[str, _Known] = {}

    def remind(self) -> None:
        """Report found members again, after longer and longer pauses: the first dial may have failed."""
        for known in list(self._known.values()):
            known.rounds += 1
            if known.rounds >= known.next_round:
                known.next_round = known.rounds + min(known.rounds, MAX_ROUNDS_BETWEEN)
                for address in known.addresses:
                    self._found(address)

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.update_service(zc, type_, name)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        if name not in self._known and len(self._known) >= MAX_FOUND:
            return
        try:
            info = zc.get_service_info(type_, name, LOOKUP_TIMEOUT_MS)
        except (OSError, Error, RuntimeError) as exc:
            log.debug("a service of the local network cannot be read: %s", exc)
            return
        try:
            addresses = self._read(info) if info is not None else ()
        except Exception as exc:  # anybody may announce anything; zeroconf's thread would end
            log.warning("an announcement on the local network cannot be read: %s", repr(exc))
            return
        known = self._known.get(name)
        if addresses and (known is None or known.addresses != addresses):
            self._known[name] = _Known(addresses)
            log.info("mDNS found peer %s at %s", addresses[0].peer_id, addresses[0].host)
            for address in addresses:
                self._found(address)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self._known.pop(name, None)

    def _read(self, info: ServiceInfo) -> tuple[Multiaddr, ...]:
        peer_id = read_announcement(info.properties, self._me.swarm_key)
        if peer_id is None or peer_id == self._me.peer_id or not info.port:
            return ()
        found = []
        for host in info.parsed_addresses()[:MAX_ADDRESSES]:
            kind = "ip6" if ":" in host else "ip4"
            with contextlib.suppress(AddressError):  # a link-local one with a zone is not dialled
                found.append(parse_multiaddr(f"/{kind}/{host}/tcp/{info.port}/p2p/{peer_id}"))
        return tuple(found)
