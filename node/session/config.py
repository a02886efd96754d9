"""What a session should be like."""

from __future__ import annotations

from msgspec import Struct, field

from node.execution.config import ExecutionConfig
from node.execution.lane import DEFAULT_MAX_LANES
from node.planning.placement import Lend
from node.privacy import DEFAULT_RECHECK, Privacy
from protocol.identity import PeerId


class SessionConfig(Struct, frozen=True):
    """What a session should be like."""

    privacy: Privacy = Privacy.AUTO
    max_lanes: int = DEFAULT_MAX_LANES
    named: tuple[PeerId, ...] | None = None
    """Peers in the order in which the user named them; None means the peers whose addresses the node was started
    with."""
    by_guards: bool = False
    """The user named nobody: this node chooses guards among the members of its swarm, and keeps them."""
    inbound_peers: bool = False
    """Whether peers that came in by themselves may be used besides those that the user named. In `split` mode two of
    them could be one adversary in both roles of a lane."""
    pad_rows: int = 0
    """`strict`: rows of pads of every unit to make before the clock starts."""
    pads_ahead: bool = False
    """`strict`: this node makes pads while it is idle."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    lend: Lend = Lend.LAYERS
    """What is lent if something is."""
    recheck: float = DEFAULT_RECHECK
    """The share of the results of the user's own devices that is computed again: 0 to 1."""
    prompt_tokens: int = 64
    new_tokens: int = 128
    """The expected size of a request, as far as it is known; `auto` uses it to compare."""
