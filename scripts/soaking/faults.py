"""Random faults for a swarm of real processes, one after the other, all of them healed again.

Each is dealt by a generator with a seed, so that a run can be repeated. The client is never killed or frozen: it is
what has to come through. It has strangers at its door, readers that do not read, and a full disk.
"""

from __future__ import annotations

import random
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from node.gateway.client.client import call_node
from scripts.attacks.floods import DOOR, TIME
from scripts.attacks.raw_zmtp import DoorShutError
from scripts.attacks.target import Attacker, Target
from scripts.harness.connections import listening_ports, reset_connections
from scripts.harness.hostile_node import LIES
from scripts.harness.swarm import HOSTILE, JUMPING_CLOCK, PROGRAM, NodeProcess, Swarm
from scripts.soaking.pressure import few_descriptors, full_disk

DOWN_S = (0.5, 4.0)
"""How long a node is away, frozen, short of something, or another."""
PAUSE_S = (1.0, 6.0)
"""Quiet time between two faults."""
FLOOD_S = 2.0
MAX_TOLD = 3000
UNREAD_BYTES = 2048
"""Receive buffer of a reader that does not read."""
FLOODS = {**TIME, **DOOR}
"""What strangers do: half-open connections and handshakes, garbage, endless commands, hellos by the thousand."""


class FaultDealer:
    """Deals faults to the peers of a swarm; used by one thread alone."""

    def __init__(self, swarm: Swarm, client: NodeProcess, victims: Sequence[NodeProcess], seed: int) -> None:
        self._swarm = swarm
        self._client = client
        self._victims = list(victims)
        self._random = random.Random(seed)
        self.dealt: Counter[str] = Counter()
        self.ended: list[str] = []
        """What nodes said that ended though nobody had ended them."""
        self._faults: dict[str, Callable[[NodeProcess], None]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "restart": self._restart,
            "reset": self._reset,
            "flood": self._flood,
            "liar": self._liar,
            "twin": self._twin,
            "clock": self._clock,
            "no descriptors": self._starve,
            "full disk": self._fill_disk,
            "no reader": self._read_nothing,
        }

    def deal(self) -> None:
        """One fault, and what heals it."""
        for victim in self._victims:
            if victim.process.poll() is not None:
                self.ended.append(f"{victim.data_dir.name} ended by itself: {victim.narration()[-MAX_TOLD:]}")
                self._restart(victim)
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
        self._restart(victim)

    def _restart(self, victim: NodeProcess, command: Sequence[str] = PROGRAM) -> None:
        self._swarm.restart(victim, options=self._others(victim), command=command)

    def _freeze(self, victim: NodeProcess) -> None:
        victim.freeze()
        self._away()
        victim.thaw()

    def _reset(self, victim: NodeProcess) -> None:
        """Every connection between the client and this peer, of both planes and both directions."""
        reset_connections(self._client.process.pid, listening_ports(victim.process.pid))
        reset_connections(victim.process.pid, listening_ports(self._client.process.pid))

    def _flood(self, victim: NodeProcess) -> None:
        """A stranger at the door of the client, and of a peer."""
        name = self._random.choice(sorted(FLOODS))
        for node in (self._client, victim):
            try:
                FLOODS[name](Target.of(node), Attacker.stranger(), time.monotonic() + FLOOD_S / 2)
            except DoorShutError:
                continue  # it keeps strangers out at once

    def _liar(self, victim: NodeProcess) -> None:
        """It lies for a while, in every role that it gets; then its owner mends it, and the client's owner lets it in
        again."""
        lie = self._random.choice(LIES)
        self._restart(victim, [*HOSTILE, "--fault", f"lie-{lie}", "--after", str(self._random.randrange(20))])
        self._away()
        self._restart(victim)
        call_node(self._client.data_dir, "allow", peer_id=victim.peer_id)

    def _twin(self, victim: NodeProcess) -> None:
        """A copy of its data directory runs beside it."""
        copy = victim.data_dir.with_name(f"{victim.data_dir.name}-twin")
        shutil.copytree(victim.data_dir, copy, ignore=_passing)
        twin = NodeProcess(self._swarm.process(copy, ["--no-gateway", *self._others(victim)]), copy)
        try:
            twin.wait_ready()
            self._away()
        finally:
            twin.stop()
            shutil.rmtree(copy)
        if victim.process.poll() is not None:  # it may take itself for the copy
            self._restart(victim)

    def _clock(self, victim: NodeProcess) -> None:
        self._restart(victim, JUMPING_CLOCK)
        self._away()
        self._restart(victim)

    def _starve(self, victim: NodeProcess) -> None:
        with few_descriptors(victim.process.pid):
            self._away()

    def _fill_disk(self, victim: NodeProcess) -> None:
        """Also the client's."""
        with full_disk(self._random.choice([victim, self._client]).process.pid):
            self._away()

    def _read_nothing(self, victim: NodeProcess) -> None:
        """A program asks the client for a long answer, and does not read it."""
        place = urlsplit(self._client.gateway)
        body = b'{"model": "story", "prompt": "Once", "max_tokens": 400, "stream": true, "ignore_eos": true}'
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
            reader.connect((place.hostname, place.port))
            reader.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            self._away()

    def _others(self, victim: NodeProcess) -> list[str]:
        return self._swarm.bootstrap([i for i, node in enumerate(self._swarm.nodes) if node is not victim])


def _passing(folder: str, names: list[str]) -> set[str]:
    """What is not for a copy: sockets, and files that are just being written."""
    return {name for name in names if name.endswith(".tmp") or Path(folder, name).is_socket()}
