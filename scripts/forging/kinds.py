"""Every kind of forgery: wrong numbers under their own digest, right numbers in another form, digests of others.

A forger knows everything but the secret vectors of the check: weights, request, digest, and the honest result. Two
kinds know a part of the vectors as well: a gate that leaves off at the first vector that fits would let them pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from node.kernels.interface import Kernels
from protocol.linear.field import Elements, P
from protocol.linear.messages import ChunkBinding, LinearResult, Role, TrustedResult, WorkResult
from protocol.linear.verification import UnitCheck, result_digest
from scripts.forging import changes
from scripts.forging.changes import Change, Random
from scripts.forging.target import Target

Numbers = NDArray[Any]
"""Elements, or integers of an answer to plain rows."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What forgeries of one request are made from."""

    target: Target
    random: Random
    kernels: Kernels
    check: UnitCheck
    earlier: WorkResult
    """The honest result of an earlier request of the same unit, role and size."""

    @property
    def binding(self) -> ChunkBinding:
        return self.target.request.binding

    @property
    def honest(self) -> Elements:
        """The honest product, `[T, N]`."""
        return self.target.honest.elements

    def in_form(self, elements: Elements) -> Numbers:
        """Field elements in the form of an answer to this request."""
        if self.target.role is not Role.PLAIN:
            return elements
        return self.kernels.merge(np.ascontiguousarray(elements), np.zeros_like(elements))

    def result(self, numbers: Numbers, digest: bytes | None = None) -> WorkResult:
        """An answer to this request; with the right digest of its numbers if none is given."""
        numbers = np.ascontiguousarray(numbers)
        digest = result_digest(self.binding, numbers) if digest is None else digest
        if self.target.role is Role.PLAIN:
            return TrustedResult(digest, 1, numbers.astype(np.int32, copy=False))
        return LinearResult(digest, 1, numbers.astype(np.uint32, copy=False))


Forge = Callable[[Scene, int], Iterator[WorkResult]]
"""Makes at most so many forged results."""


def _changed(change: Change) -> Forge:
    """Canonical elements that are not the product, under their own digest."""

    def forge(scene: Scene, count: int) -> Iterator[WorkResult]:
        honest = scene.honest
        for elements in change(scene.random, honest, count):
            if not np.array_equal(elements, honest):
                yield scene.result(scene.in_form(elements))

    return forge


def _unseen(num_vectors: int) -> Forge:
    """An error that the first vectors of the check do not see."""

    def forge(scene: Scene, count: int) -> Iterator[WorkResult]:
        binding = scene.binding
        vectors = scene.check.slice(binding.tile_start, binding.tile_end)[0][:num_vectors]
        yield from _changed(changes.unseen_by(vectors))(scene, count)

    return forge


def _out_of_range(where: Callable[[Random, Numbers], NDArray[np.bool_]]) -> Forge:
    """The right residues, but some of them as another number: plus p, or for integers p away."""

    def forge(scene: Scene, count: int) -> Iterator[WorkResult]:
        honest: Numbers = scene.target.honest.numbers
        for _ in range(count):
            chosen = where(scene.random, honest)
            if scene.target.role is Role.PLAIN:
                moved = np.where(honest < 0, honest + P, honest - P)
                yield scene.result(np.where(chosen, moved, honest).astype(np.int32))
            else:
                yield scene.result(honest + chosen.astype(np.uint32) * np.uint32(P))

    return forge


def _one_place(random: Random, honest: Numbers) -> NDArray[np.bool_]:
    chosen = np.zeros(honest.shape, bool)
    chosen[random.integers(0, len(honest)), random.integers(0, honest.shape[1])] = True
    return chosen


def _some_places(random: Random, honest: Numbers) -> NDArray[np.bool_]:
    return random.random(honest.shape) < 0.5


def _extreme(scene: Scene, count: int) -> Iterator[WorkResult]:
    """Numbers that no element and no centred integer can be."""
    plain = scene.target.role is Role.PLAIN
    values = [-(1 << 31), -(1 << 30), (1 << 31) - 1, 1 << 30] if plain else [P, P + 1, 1 << 31, (1 << 32) - 1]
    for _ in range(count):
        numbers = scene.target.honest.numbers.astype(np.int64)
        numbers[_one_place(scene.random, numbers)] = scene.random.choice(values)
        yield scene.result(numbers.astype(np.int32 if plain else np.uint32))


def _other_shape(scene: Scene, count: int) -> Iterator[WorkResult]:
    honest = scene.target.honest.numbers
    for _ in range(count):
        shapes = [
            honest[:, :-1],
            np.concatenate([honest, honest[:, :1]], axis=1),
            np.concatenate([honest, honest[:1]]),
            honest[:, : honest.shape[1] // 2],
            honest.reshape(-1, honest.shape[1] // 2),
            *([honest[:-1], honest.T] if len(honest) > 1 else []),
        ]
        yield scene.result(shapes[scene.random.integers(len(shapes))])


def _other_form(scene: Scene, count: int) -> Iterator[WorkResult]:
    """The right product in the form of an answer to another role."""
    elements = scene.honest
    sums = scene.kernels.merge(elements, np.zeros_like(elements))
    for _ in range(count):
        if scene.target.role is Role.PLAIN:
            yield LinearResult(result_digest(scene.binding, elements), 1, elements)
        else:
            yield TrustedResult(result_digest(scene.binding, sums), 1, sums)


def _other_binding(scene: Scene, count: int) -> Iterator[WorkResult]:
    """The right product with the digest of another request."""
    binding, honest = scene.binding, scene.target.honest.numbers
    others = [
        replace(binding, session=bytes(16)),
        replace(binding, nonce=binding.nonce + 1),
        replace(binding, model_id=bytes(32)),
        replace(binding, unit=bytes(32)),
        replace(binding, role=Role.PAD if binding.role is not Role.PAD else Role.SHARE),
        replace(binding, row_start=1, row_end=1 + binding.num_rows),
        replace(binding, tile_end=binding.tile_end + 1),
    ]
    for _ in range(count):
        yield scene.result(honest, result_digest(others[scene.random.integers(len(others))], honest))


def _other_digest(scene: Scene, count: int) -> Iterator[WorkResult]:
    """The right product with a digest that is none, or has one other bit."""
    honest = scene.target.honest
    for number in range(count):
        spoilt = bytearray(honest.digest)
        spoilt[scene.random.integers(len(spoilt))] ^= 1 << int(scene.random.integers(8))
        yield scene.result(honest.numbers, bytes(32) if number % 4 == 0 else bytes(spoilt))


def _stale(own_digest: bool) -> Forge:
    """The honest result of an earlier request, word for word, or under the digest of this one."""

    def forge(scene: Scene, count: int) -> Iterator[WorkResult]:
        for _ in range(count):
            yield scene.earlier if own_digest else scene.result(scene.earlier.numbers)

    return forge


def _other_weights(scene: Scene, count: int) -> Iterator[WorkResult]:
    """The product with weights of which one differs by one."""
    weights = scene.target.unit.weights
    for _ in range(count):
        row, column = scene.random.integers(len(weights)), scene.random.integers(weights.shape[1])
        amount = -1 if weights[row, column] == 127 else 1
        inputs = scene.target.request.inputs[:, column].astype(np.int64)
        elements = scene.honest.copy()
        elements[:, row] = (elements[:, row] + amount * inputs) % P
        if not np.array_equal(elements, scene.honest):
            yield scene.result(scene.in_form(elements))


def _the_request(scene: Scene, count: int) -> Iterator[WorkResult]:
    """What was sent comes back, cut or filled to the size of a result."""
    inputs = np.resize(scene.target.request.inputs, scene.honest.shape)
    for _ in range(count):
        yield scene.result(scene.in_form(np.ascontiguousarray(inputs)))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of forgery."""

    name: str
    forge: Forge
    min_rows: int = 1
    """It needs so many rows."""


KINDS = (
    Kind("one element by one more", _changed(changes.one_more(1))),
    Kind("one element by one less", _changed(changes.one_more(-1))),
    Kind("one element by any amount", _changed(changes.one_more(None))),
    Kind("one element by half of p", _changed(changes.one_more(P // 2))),
    Kind("the first element", _changed(changes.one_more(None, 0, 0))),
    Kind("the last element", _changed(changes.one_more(None, -1, -1))),
    Kind("one bit", _changed(changes.one_bit)),
    Kind("a row of zeros", _changed(changes.row_becomes(changes.zero_row))),
    Kind("a row of noise", _changed(changes.row_becomes(changes.noise_row))),
    Kind("a row turned", _changed(changes.row_becomes(changes.turned_row))),
    Kind("a row doubled", _changed(changes.row_becomes(changes.times(2)))),
    Kind("a row negated", _changed(changes.row_becomes(changes.times(P - 1)))),
    Kind("a row times any number", _changed(changes.row_becomes(changes.times(None)))),
    Kind("all zeros", _changed(changes.all_zero)),
    Kind("all noise", _changed(changes.noise)),
    Kind("two outputs swapped", _changed(changes.columns_swapped)),
    Kind("two rows swapped", _changed(changes.rows_swapped), 2),
    Kind("a row twice", _changed(changes.row_twice), 2),
    Kind("errors that cancel in a row", _changed(changes.cancelling(True))),
    Kind("errors that cancel over rows", _changed(changes.cancelling(False)), 2),
    Kind("a row of errors that cancel", _changed(changes.many_that_cancel)),
    Kind("an error that one vector misses", _unseen(1)),
    Kind("an error that two vectors miss", _unseen(2)),
    Kind("weights of another model", _other_weights),
    Kind("the request itself", _the_request),
    Kind("an earlier result, word for word", _stale(True)),
    Kind("an earlier result, relabelled", _stale(False)),
    Kind("one residue plus p", _out_of_range(_one_place)),
    Kind("half of the residues plus p", _out_of_range(_some_places)),
    Kind("a number out of range", _extreme),
    Kind("another shape", _other_shape),
    Kind("another form", _other_form),
    Kind("another binding", _other_binding),
    Kind("another digest", _other_digest),
)
ALL_KNOWN = Kind("an error that all vectors miss", _unseen(3))
"""The control: whoever knows all secret vectors can forge."""
