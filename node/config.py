"""The configuration of a node at its start."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from node.serving.lending import Lending
from node.swarm.access import AccessList
from node.swarm.device_names import DeviceNames
from node.transfer.published import PublishedModels
from node.trust import PairedDevices
from protocol.identity import Identity, PeerId
from protocol.link.admission import SwarmKey
from protocol.multiaddr import Multiaddr


class NodeConfig(Struct, frozen=True):
    """The configuration of a node at its start."""

    identity: Identity
    listen: Multiaddr | None
    """None: nobody can dial in; the node serves over the connections that it dials."""
    bootstrap: tuple[Multiaddr, ...] = ()
    threads: int | None = None
    models_dir: Path | None = None
    """The folder of models fetched from peers; None: none can be fetched."""
    swarm_key: SwarmKey | None = None
    """None: an open swarm."""
    state: Path | None = None
    """The folder of membership's files; None: the node is not a member, and knows only peers that it dials or that
    dial it."""
    access: AccessList | None = None
    paired: PairedDevices | None = None
    """Devices of the same owner; None: there are none, and new pairings are not stored."""
    memory_bytes: int = 0
    """Memory for weights, its own and those that it serves; 0: half of what is free."""
    announced: tuple[Multiaddr, ...] = ()
    """Addresses that the user gave: the record names them without a dial-back."""
    on_lan: bool = False
    """Whether a member looks for others by multicast DNS."""
    named: tuple[PeerId, ...] = ()
    """Peers whose places in lanes the user chose: 2i and 2i + 1 are the guards of lane i (SPEC.md section 2). None:
    this node chooses guards among the members of its swarm, and keeps them."""
    sends_all_rows: bool = False
    """Whether the next turn of a conversation sends the rows of its beginning again, in modes that show rows to
    others, so that they cannot tell that it continues the previous turn."""
    guards_path: Path | None = None
    """The file of this node's guards; None: they are only in memory."""
    measures_path: Path | None = None
    """The file of peers' figures; None: each process measures them anew."""
    name: str = ""
    """The name of this device that peers are told; empty: none."""
    lending: Lending | None = None
    """What is computed for others, and when; None: always, and it is counted in memory."""
    published: PublishedModels | None = None
    """Models that the user put on the swarm; None: they are only in memory."""
    replicas_path: Path | None = None
    """The file of models that others published; None: they are only in memory."""
    replicates: bool = False
    """Whether this node holds parts of models that members of its swarm publish, where the owner's rules allow it."""
    names: DeviceNames | None = None
    """Names that the user gave to devices; None: they are only in memory."""

    @property
    def is_alone(self) -> bool:
        """Whether it dials nobody and nobody can dial it."""
        return self.listen is None and not self.bootstrap and self.state is None
