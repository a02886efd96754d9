"""A session whose peers are scripted, watched from all sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import zmq
from made_parts import KERNELS, MODEL_ID, identity, make_rows
from scripted_peer import Script, ScriptedChannel, ScriptedPeer

from node.execution.chunk import ChunkRecord, ChunkState
from node.execution.config import ExecutionConfig
from node.execution.distributed import execute_distributed
from node.execution.gate import UnitChecks
from node.execution.interrupt import Interrupt
from node.execution.manager import ExecutionManager
from node.execution.pads.guard import GuardPads
from node.execution.pads.none import NoPads
from node.execution.pads.own import OwnPads
from node.execution.pads.paired import PairedPads
from node.kernels.interface import Kernels
from node.model.unit import Unit
from protocol.linear.messages import Role
from protocol.linear.shares import PadSeeds

IMPATIENT = ExecutionConfig(progress_limit_s=0.06, hedge_floor_s=0.02, hedge_unmeasured_s=0.03)
PATIENT = ExecutionConfig()


class WatchedKernels:
    """The kernels, with every pad row and every share row noted on its way."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self.pads: list[bytes] = []
        self.rows: list[np.ndarray] = []

    def share(self, rows: np.ndarray, pads: np.ndarray) -> np.ndarray:
        self.pads += [pad.tobytes() for pad in pads]
        self.rows.append(rows.copy())
        return self._kernels.share(rows, pads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernels, name)


class WatchedSeeds(PadSeeds):
    """The source of seeds, with every seed noted."""

    HIDDEN = (*PadSeeds.HIDDEN, "made")
    made: list[bytes] = msgspec.field(default_factory=list)

    def next(self, layer: int | None, kind: str, role: str) -> bytes:
        seed = PadSeeds.next(self, layer, kind, role)
        self.made.append(seed)
        return seed


class WatchedManager(ExecutionManager):
    """The manager, with every wait noted."""

    waits: list[float]

    def pump(self, timeout_s: float) -> float:
        self.waits.append(timeout_s)
        return super().pump(timeout_s)


@dataclass
class Swarm:
    """One session and its scripted peers; a context manager."""

    units: Sequence[Unit]
    mode: str = "split"
    config: ExecutionConfig = PATIENT
    peers: list[ScriptedPeer] = field(default_factory=list)
    lives: dict[int, list[ChunkState]] = field(default_factory=dict)
    records: dict[int, ChunkRecord] = field(default_factory=dict)
    rechecked: list[Unit] = field(default_factory=list)
    interrupt: Interrupt = field(default_factory=Interrupt)

    def __post_init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.kernels = WatchedKernels(KERNELS)
        checks = UnitChecks(KERNELS)
        for unit in self.units:
            checks.of(unit)
        self.seeds = WatchedSeeds(b"M" * 32, MODEL_ID)
        self.manager = WatchedManager(
            self.kernels,  # type: ignore[arg-type]
            MODEL_ID,
            checks,
            1e9,
            self.config,
            self.rechecked.append,
            self._note,
            self.interrupt,
        )
        self.manager.waits = []
        self.own_pads = OwnPads(KERNELS, self.seeds)
        self.paired_pads: PairedPads | None = None
        self.may_read = self.paired = True

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.manager.close()
        for peer in self.peers:
            peer.channel.close()
        self.context.destroy(linger=0)
        self.interrupt.close()

    def _note(self, record: ChunkRecord) -> None:
        self.records[id(record)] = record
        self.lives.setdefault(id(record), [ChunkState.PLANNED]).append(record.state)

    def add_peer(self, role: Role, script: Script) -> ScriptedPeer:
        channel = ScriptedChannel(self.context, identity(len(self.peers)).peer_id)
        peer = ScriptedPeer(channel, role, script, self.units)
        self.peers.append(peer)
        for each in self.peers:
            each.swarm = self.peers
        self.manager.add_peer(peer.session)
        return peer

    def add_lane(self, *scripts: Script) -> tuple[ScriptedPeer, ...]:
        """A lane of (pad guard, share guard), or of one peer alone: in strict mode, also where `add_maker` was called
        before, and in trusted mode."""
        if self.mode == "trusted":
            (script,) = scripts
            reader = self.add_peer(Role.PLAIN, script)
            self.manager.add_lane(reader.session, NoPads(lambda: self.may_read))
            return (reader,)
        if self.mode == "strict":
            (script,) = scripts
            share = self.add_peer(Role.SHARE, script)
            self.manager.add_lane(share.session, self.paired_pads or self.own_pads)
            return (share,)
        pad, share = self.add_peer(Role.PAD, scripts[0]), self.add_peer(Role.SHARE, scripts[1])
        self.manager.add_lane(share.session, GuardPads(pad.session, self.seeds, self.manager.send_pad))
        return pad, share

    def add_maker(self, script: Script) -> ScriptedPeer:
        """A paired device that makes the pads of all lanes of a strict session."""
        maker = self.add_peer(Role.PAD, script)
        theirs = GuardPads(maker.session, self.seeds, self.manager.send_pad)
        self.paired_pads = PairedPads(theirs, self.own_pads, lambda: self.paired)
        return maker

    def step(self, num_rows: int, seed: int = 1) -> None:
        """One forward pass through every unit, each result compared with the local kernel's."""
        self.manager.hear()
        self.manager.begin_step(num_rows, self.units)
        for index, unit in enumerate(self.units):
            floats = make_rows(num_rows, unit.ref.num_inputs, seed + index).astype(np.float32) * np.float32(0.37)
            rows, _scales = KERNELS.quantize(floats, unit.max_row_norm)
            sums = execute_distributed(self.manager, unit, rows, floats if self.manager.roster.plain else None)
            assert sums.dtype == np.int32
            assert np.array_equal(sums, KERNELS.linear_a12(unit.weights, rows))

    @property
    def ended(self) -> list[ChunkState]:
        """How each chunk's numbers were found: the state before it was merged."""
        return [life[-2] for life in self.lives.values()]
