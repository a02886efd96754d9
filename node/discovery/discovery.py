"""How a node is found and finds others without given addresses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from node.discovery.mdns import LanDiscovery, LanIdentity
from node.discovery.reach_keeper import ReachKeeper
from node.transport.log_limit import LogLimit
from protocol.multiaddr import Multiaddr

log = logging.getLogger(__name__)

INTERVAL_S = 5.0
"""How often the interfaces are checked: a device that moved is found again after this time."""


class Discovery:
    """The node's reachability (`reach`, a resident of the control plane) and its multicast DNS (`lan`).

    Args:
        listening: gives the addresses of this device's interfaces on which the node listens now.
        announced: addresses that the user gave.
        changed: called in the control plane's loop when the addresses for the record have changed.
        found: called in a thread with an address of a member.
        on_lan: whether to use multicast DNS.
    """

    def __init__(
        self,
        me: LanIdentity,
        listening: Callable[[], Sequence[Multiaddr]],
        announced: Sequence[Multiaddr],
        changed: Callable[[], None],
        found: Callable[[Multiaddr], None],
        on_lan: bool,
    ) -> None:
        self.reach = ReachKeeper(listening, announced, changed)
        self.lan = LanDiscovery(me, found)
        self._listening = listening
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True) if on_lan else None
        if not on_lan:
            self.lan.note = "turned off by --no-mdns"

    def start(self) -> None:
        """Returns at once; multicast runs in its own thread."""
        if self._thread is not None:
            self._thread.start()

    def stop(self) -> None:
        """Leave the local network."""
        self._stopping.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        complaints = LogLimit(log)
        while not self._stopping.is_set():
            try:
                self.lan.update(self._listening())
            except Exception as exc:  # the node works without it, and it may work again later
                complaints.warning("multicast DNS failed (%s); trying again", repr(exc))
            self._stopping.wait(INTERVAL_S)
        self.lan.stop()
