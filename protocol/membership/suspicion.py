"""How long a suspect has to speak up: Lifeguard's suspicion (arXiv 1707.00788, section IV).

The time starts at its maximum and shrinks logarithmically with every further accuser, since independent accusers make
it unlikely that the fault is the accuser's own. It grows with the logarithm of the swarm's size, as does the time
that news take.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

from protocol.membership.config import MembershipConfig


class Suspicion(Struct):
    """One peer under suspicion."""

    started_at: float
    num_peers: int
    """Size of the swarm when it began, without this node and the suspect."""
    accusers: set[bytes] = field(default_factory=set)
    called_dead: bool = False
    """Somebody's verdict was already passed on."""

    def confirm(self, accuser: bytes, config: MembershipConfig) -> bool:
        """Add an accuser; False where it changes nothing and need not be passed on."""
        if accuser in self.accusers or len(self.accusers) > config.suspicion_confirmations:
            return False
        self.accusers.add(accuser)
        return True

    def deadline(self, config: MembershipConfig) -> float:
        """When the suspect counts as dead."""
        least_s, most_s = suspicion_bounds(self.num_peers, config)
        wanted = min(config.suspicion_confirmations, self.num_peers)
        if wanted < 1:
            return self.started_at + least_s  # nobody else is there to confirm
        confirmations = min(max(len(self.accusers) - 1, 0), wanted)
        share = math.log(confirmations + 1) / math.log(wanted + 1)
        return self.started_at + max(least_s, most_s - share * (most_s - least_s))


def suspicion_bounds(num_peers: int, config: MembershipConfig) -> tuple[float, float]:
    """Least and most seconds of a suspicion in a swarm of this size."""
    least_s = config.suspicion_multiplier * max(1.0, math.log10(max(1, num_peers))) * config.probe_interval_s
    return least_s, least_s * config.suspicion_max_factor
