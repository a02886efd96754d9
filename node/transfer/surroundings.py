"""What a transfer needs from its node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from node.kernels.interface import Kernels
from node.serving.hosting import HostedModels
from node.transport.registry import PeerRegistry
from node.transport.sockets import SecureContext
from protocol.identity import PeerId


class Surroundings(Struct, frozen=True):
    """The parts of a node that transfers use."""

    secure: SecureContext
    registry: PeerRegistry
    hosted: HostedModels
    kernels: Kernels
    models_dir: Path
    on_liar: Callable[[PeerId, str], None]
    computes_spans: Callable[[], bool] = lambda: False
    """Whether whole layers may be computed for somebody here: then their norms are needed too."""

    @property
    def peer_id(self) -> PeerId:
        return self.secure.identity.peer_id
