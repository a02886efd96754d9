"""Host names become addresses here, never in libzmq: it looks them up in the thread that moves every socket's data.

A name server that does not answer would stop the whole node, and names come from peers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

from node.errors import TransportError
from protocol.multiaddr import Multiaddr

MAX_LOOKUPS = 8
"""Most lookups at one time of names that come from peers: one may take half a minute."""

_slots = threading.BoundedSemaphore(MAX_LOOKUPS)
_FAMILIES = {"dns4": (socket.AF_INET, "ip4"), "dns6": (socket.AF_INET6, "ip6")}


async def resolve(address: Multiaddr, timeout_s: float, users_own: bool = False) -> Multiaddr:
    """The address with an IP address as its host. Raises TransportError where no lookup answers in time.

    Args:
        users_own: the user gave this address; those of peers never stand in its way.
    """
    if address.protocol not in _FAMILIES:
        return address
    if not users_own and not _slots.acquire(blocking=False):
        raise TransportError(
            f"cannot dial {address}: {MAX_LOOKUPS} other names are being looked up, tried again later"
        )
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str | None] = loop.create_future()

    def tell(host: str | None) -> None:
        if not found.done():
            found.set_result(host)

    def look_up() -> None:
        try:
            host = _first_host(address)
        finally:
            if not users_own:
                _slots.release()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, host)

    threading.Thread(target=look_up, name="name lookup", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            host = await found
    except TimeoutError:
        raise TransportError(f"cannot dial {address}: no name server answered within {timeout_s:g} s") from None
    if host is None:
        raise TransportError(f"cannot dial {address}: no address is known for that name, check it")
    return Multiaddr(_FAMILIES[address.protocol][1], host, address.port, address.peer_id)


def _first_host(address: Multiaddr) -> str | None:
    family, _protocol = _FAMILIES[address.protocol]
    try:
        entries = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    hosts = (str(entry[4][0]) for entry in entries)
    return next((host for host in hosts if "%" not in host), None)  # a zone cannot be written in an address
