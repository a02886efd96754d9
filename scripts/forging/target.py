"""A request for a real unit, as a client makes it, and its honest result, as a worker computes it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zmq

from node.execution.chunk import Chunk, ChunkRecord
from node.execution.owners import PadOwner, ShareOwner
from node.execution.pads.batch import PadBatch
from node.execution.peer import Request, SessionPeer
from node.execution.requests import pad_request, share_request
from node.kernels.interface import Kernels
from node.model.unit import Unit
from node.serving.worker import LinearWorker
from node.store.library import BUILT_IN_NAME, Library
from node.store.stored import StoredModel
from node.transport.channel import Channel
from protocol.identity import Identity
from protocol.limits import SEED_BYTES, TILE_OUTPUTS
from protocol.linear.field import Elements
from protocol.linear.messages import Role, WorkResult
from protocol.linear.shares import pad_rows

ROWS = (1, 1, 1, 8, 1, 16, 1, 8, 1, 32)
"""Rows of requests, one after the other: mostly those of an answer, now and then those of a prompt."""


@dataclass(frozen=True, slots=True)
class Target:
    """One request and the result that it should get."""

    unit: Unit
    request: Request
    honest: WorkResult

    @property
    def role(self) -> Role:
        return self.request.binding.role


class Targets:
    """Makes requests of every role for the units of the built-in model; a context manager."""

    def __init__(self, kernels: Kernels, folder: Path, random: np.random.Generator) -> None:
        self.model: StoredModel = Library(folder).resolve(BUILT_IN_NAME)
        self._kernels, self._random = kernels, random
        self._worker = LinearWorker(kernels, self._weights_of, self._norm_of)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._peers = {role: self._peer(role, number) for number, role in enumerate(Role)}
        self._units = itertools.cycle(all_units(self.model))
        self._roles = itertools.cycle((Role.SHARE, Role.PAD, Role.SHARE, Role.PLAIN))
        self._rows = itertools.cycle(ROWS)

    def __enter__(self) -> Targets:
        return self

    def __exit__(self, *_exc: object) -> None:
        for peer in self._peers.values():
            peer.channel.close()
        self._context.term()

    def next(self) -> Target:
        """The next request, of another unit, role or number of rows, with new numbers."""
        return self._made(next(self._units), next(self._roles), next(self._rows))

    def like(self, target: Target) -> Target:
        """A request of the same unit, role and number of rows, with other numbers."""
        return self._made(target.unit, target.role, target.request.binding.num_rows)

    def _made(self, unit: Unit, role: Role, num_rows: int) -> Target:
        peer, model_id = self._peers[role], self.model.model_id_bytes
        if role is Role.PAD:
            request = pad_request(peer, model_id, owner := self._batch(unit, num_rows))
            request.inputs = owner.subject.pads
        else:
            chunk, share = self._chunk(unit, role, num_rows)
            request = share_request(peer, model_id, chunk, share)
        honest = self._worker.answer(request.message)
        assert isinstance(honest, WorkResult), honest
        return Target(unit, request, honest)

    def _chunk(self, unit: Unit, role: Role, num_rows: int) -> tuple[ShareOwner, Elements]:
        """A chunk, and its share."""
        ref = unit.ref
        floats = self._random.normal(size=(num_rows, ref.num_inputs)).astype(np.float32)
        rows, _scales = self._kernels.quantize(floats, unit.max_row_norm)
        pads = pad_rows(secrets.token_bytes(SEED_BYTES), 0, num_rows, ref.num_inputs)
        chunk = Chunk(ref, 0, num_rows, 0, -(-ref.num_outputs // TILE_OUTPUTS), num_rows)
        record = ChunkRecord(chunk, lane=0)
        if role is Role.PLAIN:
            record.plain, pads = floats, np.zeros_like(pads)
        record.share = share = self._kernels.share(rows, pads)
        return ShareOwner(record, lambda record, event: None, lambda record, again: None), share

    @staticmethod
    def _batch(unit: Unit, num_rows: int) -> PadOwner:
        batch = PadBatch(unit.ref, secrets.token_bytes(SEED_BYTES), num_rows)
        return PadOwner(batch, lambda request, state: None)

    def _peer(self, role: Role, number: int) -> SessionPeer:
        """A peer of a session; nothing is sent to it here."""
        peer_id = Identity.from_seed(bytes([number]) * 32).peer_id
        return SessionPeer(peer_id, role, Channel(peer_id, self._context.socket(zmq.PAIR)))

    def _weights_of(self, model_id: bytes, sha256: bytes) -> np.ndarray | None:
        unit = self.model.unit_by_hash(sha256)
        return None if unit is None else unit.weights

    def _norm_of(self, model_id: bytes, sha256: bytes) -> float | None:
        unit = self.model.unit_by_hash(sha256)
        return None if unit is None else unit.max_row_norm


def all_units(model: StoredModel) -> Sequence[Unit]:
    """Every unit of a model."""
    return [model.unit(ref.layer, ref.kind) for ref in model.units]
