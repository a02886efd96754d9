"""Random faults for a swarm of real processes, one after the other, all of them healed again.

Each is dealt by a generator with a seed, so that a run can be repeated. The client is never a victim: it is what
has to come through.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from scripts.attacks.floods import knock_for
from scripts.attacks.target import Attacker, Target
from scripts.harness.connections import listening_ports, reset_connections
from scripts.harness.swarm import NodeProcess, Swarm

DOWN_S = (0.5, 4.0)
"""How long a node is away or frozen."""
PAUSE_S = (1.0, 6.0)
"""Quiet time between two faults."""
KNOCK_S = 2.0


class FaultDealer:
    """Deals faults to the peers of a swarm; used by one thread alone."""

    def __init__(self, swarm: Swarm, client: NodeProcess, victims: Sequence[NodeProcess], seed: int) -> None:
        self._swarm = swarm
        self._client = client
        self._victims = list(victims)
        self._random = random.Random(seed)
        self.dealt: Counter[str] = Counter()
        self._faults: dict[str, Callable[[NodeProcess], None]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "restart": self._restart,
            "reset": self._reset,
            "knock": self._knock,
        }

    def deal(self) -> None:
        """One fault, and what heals it."""
        name = self._random.choice(list(self._faults))
        self._faults[name](self._random.choice(self._victims))
        self.dealt[name] += 1

    def pause_s(self) -> float:
        """How long to leave the swarm alone now."""
        return self._random.uniform(*PAUSE_S)

    def _away(self) -> None:
        time.sleep(self._random.uniform(*DOWN_S))

    def _kill(self, victim: NodeProcess) -> None:
        victim.kill()
        self._away()
        self._swarm.restart(victim, options=self._others(victim))

    def _restart(self, victim: NodeProcess) -> None:
        self._swarm.restart(victim, options=self._others(victim))

    def _freeze(self, victim: NodeProcess) -> None:
        victim.freeze()
        self._away()
        victim.thaw()

    def _reset(self, victim: NodeProcess) -> None:
        """Every connection between the client and this peer, of both planes and both directions."""
        reset_connections(self._client.process.pid, listening_ports(victim.process.pid))
        reset_connections(victim.process.pid, listening_ports(self._client.process.pid))

    def _knock(self, victim: NodeProcess) -> None:
        """A stranger at the door of the client, and of a peer."""
        for node in (self._client, victim):
            knock_for(Target.of(node), Attacker.stranger(), KNOCK_S / 2)

    def _others(self, victim: NodeProcess) -> list[str]:
        return self._swarm.bootstrap([i for i, node in enumerate(self._swarm.nodes) if node is not victim])
