"""The KV cache of a sequence: keys and values of the layers that are computed here, and the tokens to which they
belong; of the other layers, what must be sent to compute them again."""

from __future__ import annotations

import math
import mmap
from collections.abc import Collection, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from node.errors import PromptError
from node.model.config import ModelConfig
from node.model.row_log import RowLog
from protocol.linear.field import Floats

Addresses = NDArray[np.uint64]
GROWTH_TOKENS = 512
"""So many slots are added at a time: memory grows with the text, and copying is rare."""


class KVCache:
    """Keys and values of one sequence; never shared by two sequences or two threads.

    Args:
        capacity: most tokens that it may hold, at most the model's context.
        reach: length that its text may reach, as far as is known at the beginning; by default its capacity.
        here: the layers whose keys and values it has room for; by default all.
    """

    def __init__(
        self, config: ModelConfig, capacity: int, reach: int | None = None, here: Collection[int] | None = None
    ) -> None:
        self.capacity = min(capacity, config.context_length)
        self.reach = min(self.capacity if reach is None else reach, config.context_length)
        self.stretched = config.rope.stretches(self.reach)
        """Whether its keys are rotated by the long factors of longrope, from the first token on."""
        self.token_ids: list[int] = []
        """The tokens whose keys and values are held, in order."""
        self._shape = (config.num_kv_heads, config.head_dim)
        self.keys: list[Floats] = [self._empty(0) for _ in range(config.num_layers)]
        """Rotated keys by layer: [G, S, d]; slots from `length` on hold nothing."""
        self.values: list[Floats] = [self._empty(0) for _ in range(config.num_layers)]
        """Values by layer: [G, S, d]."""
        self.inputs: dict[int, RowLog] = {}
        """Hidden states before a layer, by layer: where another device begins to compute."""
        self.num_slots = 0
        """Tokens that have room now."""
        self._here = frozenset(range(config.num_layers) if here is None else here)
        self._addresses: tuple[Addresses, Addresses] | None = None

    @property
    def length(self) -> int:
        """Tokens held; the next token's position."""
        return len(self.token_ids)

    @property
    def num_bytes(self) -> int:
        """Memory of its slots, including empty ones."""
        logs = sum(log.num_bytes for log in self.inputs.values())
        return logs + sum(layer.nbytes for layer in (*self.keys, *self.values))

    @property
    def addresses(self) -> tuple[Addresses, Addresses]:
        """By layer, where its keys and its values lie; valid until `reserve` is called."""
        if self._addresses is None:
            keys, values = (
                np.array([layer.ctypes.data for layer in layers], np.uint64) for layers in (self.keys, self.values)
            )
            self._addresses = keys, values
        return self._addresses

    def reserve(self, num_tokens: int) -> None:
        """Makes room for more tokens.

        Raises:
            PromptError: they exceed the capacity.
        """
        needed = self.length + num_tokens
        if needed > self.capacity:
            raise PromptError(
                f"{needed} tokens exceed the {self.capacity} that the model remembers; shorten the text"
            )
        if needed > self.num_slots:
            self._make_room(needed)

    def added_bytes(self, num_tokens: int) -> int:
        """Memory by which `reserve` makes it larger if it is to hold so many tokens in all."""
        if num_tokens <= self.num_slots:
            return 0
        num_groups, head_dim = self._shape
        return 2 * 4 * num_groups * head_dim * len(self._here) * (self._slots_for(num_tokens) - self.num_slots)

    def hold(self, layers: Collection[int]) -> None:
        """From now on, have room for keys and values of these layers too."""
        new = frozenset(layers) - self._here
        for index in new:
            self.keys[index], self.values[index] = self._empty(self.num_slots), self._empty(self.num_slots)
        if new:
            self._here, self._addresses = self._here.union(new), None

    def commit(self, token_ids: Sequence[int]) -> None:
        """Counts tokens as held, once every layer has their keys and values."""
        self.token_ids.extend(token_ids)

    def truncate(self, length: int) -> None:
        """Forgets the tokens from `length` on."""
        del self.token_ids[length:]
        for log in self.inputs.values():
            log.truncate(length)

    def reuse(self, token_ids: Sequence[int]) -> int:
        """Keeps the longest common prefix with `token_ids` (without their last token); returns its length.

        The last token is computed again, because its logits are not kept.
        """
        limit = min(self.length, len(token_ids) - 1)
        shared = next((i for i in range(limit) if self.token_ids[i] != token_ids[i]), max(limit, 0))
        self.truncate(shared)
        return shared

    def beginning(self, length: int) -> KVCache:
        """Another cache with at most so many of the first tokens of this one."""
        twin = copy(self)
        twin.token_ids = self.token_ids[:length]
        # What went into later layers came from devices; the twin gets it from those that compute its own layers.
        twin.inputs = {layer: log.beginning(length) for layer, log in self.inputs.items() if layer == 0}
        twin._make_room(twin.length)
        return twin

    def _make_room(self, num_tokens: int) -> None:
        """Give every layer that is computed here room for so many tokens at least; the others get none."""
        self.num_slots = self._slots_for(num_tokens)
        self.keys = [self._grown(index, layer) for index, layer in enumerate(self.keys)]
        self.values = [self._grown(index, layer) for index, layer in enumerate(self.values)]
        self._addresses = None

    def _slots_for(self, num_tokens: int) -> int:
        return min(self.capacity, -(-num_tokens // GROWTH_TOKENS) * GROWTH_TOKENS)

    def _empty(self, num_slots: int) -> Floats:
        """Zeros in their own memory mapping, so that the memory of a finished text returns to the system at once; the
        C library's arenas do not guarantee that."""
        num_groups, head_dim = self._shape
        shape = (num_groups, num_slots, head_dim)
        if not num_slots:
            return np.zeros(shape, dtype=np.float32)
        pages = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return np.frombuffer(pages, dtype=np.float32).reshape(shape)

    def _grown(self, index: int, layer: Floats) -> Floats:
        if index not in self._here:
            return layer
        grown, kept = self._empty(self.num_slots), min(self.length, layer.shape[1])
        grown[:, :kept] = layer[:, :kept]
        return grown
