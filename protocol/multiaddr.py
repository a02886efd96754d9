"""Addresses in libp2p's text form: `/ip4/127.0.0.1/tcp/4711/p2p/12D3KooW...`.

Only the parts that a node can use are read: ip4, ip6, dns4, dns6, then tcp, then an optional p2p.
"""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from protocol.errors import AddressError, RemoteProtocolError
from protocol.identity import PeerId, curve_public_key_of, public_key_of

MAX_ADDRESS_CHARACTERS = 256
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*")


class Multiaddr(Struct, frozen=True):
    """One dialable or listenable TCP address, with the PeerID expected there if it is known."""

    protocol: str
    """`ip4`, `ip6`, `dns4` or `dns6`."""
    host: str
    port: int
    peer_id: PeerId | None = None

    def __str__(self) -> str:
        text = f"/{self.protocol}/{self.host}/tcp/{self.port}"
        return text if self.peer_id is None else f"{text}/p2p/{self.peer_id}"

    @property
    def endpoint(self) -> str:
        """ZeroMQ's form of the address."""
        host = f"[{self.host}]" if self.protocol == "ip6" else self.host
        return f"tcp://{host}:{self.port}"

    def with_port(self, port: int) -> Multiaddr:
        return Multiaddr(self.protocol, self.host, port, self.peer_id)

    def with_peer(self, peer_id: PeerId) -> Multiaddr:
        return Multiaddr(self.protocol, self.host, self.port, peer_id)


def parse_multiaddr(text: str) -> Multiaddr:
    """Read one address; raises AddressError naming the part that is wrong and the form expected."""
    form = "expected /ip4/HOST/tcp/PORT or /ip4/HOST/tcp/PORT/p2p/PEERID"
    if len(text) > MAX_ADDRESS_CHARACTERS:
        raise AddressError(f"the address has {len(text)} characters, at most {MAX_ADDRESS_CHARACTERS} are read")
    parts = text.split("/")
    if len(parts) not in (5, 7) or parts[0] or parts[3] != "tcp" or (len(parts) == 7 and parts[5] != "p2p"):
        raise AddressError(f"{text!r} is not an address: {form}")
    protocol, host = parts[1], parts[2]
    _check_host(text, protocol, host)
    if not parts[4].isascii() or not parts[4].isdigit() or int(parts[4]) > 65535:
        raise AddressError(f"{text!r}: {parts[4]!r} is not a TCP port (0 to 65535)")
    peer_id = None
    if len(parts) == 7:
        try:
            curve_public_key_of(public_key_of(parts[6]))
        except RemoteProtocolError as exc:
            raise AddressError(f"{text!r}: {exc}") from exc
        peer_id = PeerId(parts[6])
    return Multiaddr(protocol, host, int(parts[4]), peer_id)


def _check_host(text: str, protocol: str, host: str) -> None:
    if protocol in ("ip4", "ip6"):
        kind = ipaddress.IPv4Address if protocol == "ip4" else ipaddress.IPv6Address
        try:
            kind(host)
        except ValueError as exc:
            raise AddressError(f"{text!r}: {host!r} is not an {protocol} address") from exc
        if "%" in host:  # libp2p writes zones as /ip6zone; Python takes any text for one
            raise AddressError(f"{text!r}: {host!r} has a zone, which is not supported")
    elif protocol in ("dns4", "dns6"):
        if not _HOST_NAME.fullmatch(host):
            raise AddressError(f"{text!r}: {host!r} is not a host name")
    else:
        raise AddressError(f"{text!r}: /{protocol} is not supported (use /ip4, /ip6, /dns4 or /dns6)")
