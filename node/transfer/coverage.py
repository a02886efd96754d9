"""Who takes over a layer that too few nodes hold, and when a node may drop one: decided purely, for one model.

Every node decides for itself from what peers announce. All rank the same candidates alike, by a hash: as many nodes
act as are needed, and the next ones act only where the first did not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from msgspec import Struct

from node.transfer.choice import ENOUGH_OPERATORS, sayable
from protocol.identity import PeerId

SHORT_S = 5.0
"""A layer must lack holders for so long before anybody acts: a node that restarts causes no fetch."""
TURN_S = 5.0
"""The next candidates wait so much longer than the ones before them."""
FETCHED_BYTES_PER_S = 8 << 20
"""The next candidates also leave the ones before them the time to fetch the layer at this rate."""
HANDOVER_S = 300.0
"""A node that has less memory serves what it drops for so long at most, where nobody takes it over."""


class Holding(Struct, frozen=True):
    """What one node holds of the model."""

    peer_id: PeerId
    operator: bytes
    layers: frozenset[int]
    """Layers that it serves and keeps."""
    leaving: frozenset[int] = frozenset()
    """Layers that it serves and will drop."""
    room_bytes: int = 0
    """Memory that it lends and that no layer takes; below zero where it holds more than it lends."""


class Move(Struct, frozen=True):
    """What a node is to do now."""

    take: tuple[int, ...] = ()
    """Layers to fetch and serve, the most urgent first."""
    drop: frozenset[int] = frozenset()
    """Layers to serve no longer, from now on."""
    leaving: frozenset[int] = frozenset()
    """Layers to serve until others have taken them over."""


class Coverage:
    """One node's part in keeping every layer of a model at two operators.

    Args:
        layer_bytes: size of each layer.
    """

    def __init__(self, model_id: bytes, layer_bytes: Sequence[int]) -> None:
        self._model_id = model_id
        self._bytes = layer_bytes
        self._short_since: dict[int, float] = {}
        self._leaving_since: dict[int, float] = {}

    def step(self, now: float, mine: Holding, others: Sequence[Holding]) -> Move:
        """Decide.

        Args:
            now: seconds of a monotonic clock.
            mine: what this node holds; what is being fetched counts as held.
            others: what the others that can be reached hold.
        """
        view = _View(self._model_id, self._bytes, mine, others)
        leaving, drop = self._hand_over(now, view)
        if leaving or drop:
            self._short_since.clear()  # not looked at meanwhile: what is short afterwards waits anew
            return Move((), drop, leaving)
        return self._take_over(now, view)

    def _hand_over(self, now: float, view: _View) -> tuple[frozenset[int], frozenset[int]]:
        """Layers that are to leave, and those that go now: enough others hold them, or time is up."""
        mine = view.mine
        held = mine.layers | mine.leaving
        left = mine.room_bytes + sum(self._bytes[layer] for layer in held)
        kept = []
        for layer in sorted(held, key=lambda one: (len(view.others_with[one]), one in mine.leaving, one)):
            if self._bytes[layer] <= left:
                kept.append(layer)
                left -= self._bytes[layer]
        leaving = held.difference(kept)
        self._leaving_since = {layer: self._leaving_since.get(layer, now) for layer in leaving}
        drop = frozenset(
            layer for layer, since in self._leaving_since.items() if view.is_safe(layer) or now - since >= HANDOVER_S
        )
        return leaving - drop, drop

    def _take_over(self, now: float, view: _View) -> Move:
        short = view.short()
        self._short_since = {layer: self._short_since.get(layer, now) for layer in short}
        kept, take, room = set(view.mine.layers), list[int](), view.mine.room_bytes
        for layer in sorted(short, key=lambda one: (len(view.others_with[one]), self._short_since[one], one)):
            turn = view.turn_of_mine(layer)
            if turn is None or now < self._short_since[layer] + SHORT_S + turn * self._pause_s(layer):
                continue
            spare = None if room >= self._bytes[layer] else view.spare(kept, self._bytes[layer] - room)
            after = [*(kept - {spare}), *take, layer]
            freed = 0 if spare is None else self._bytes[spare]
            if room + freed < self._bytes[layer] or len(sayable(after)) < len(after):
                continue
            kept.discard(-1 if spare is None else spare)
            take.append(layer)
            room += freed - self._bytes[layer]
        return Move(tuple(take), view.mine.layers - kept)

    def _pause_s(self, layer: int) -> float:
        return TURN_S + self._bytes[layer] / FETCHED_BYTES_PER_S


class _View:
    """The model as this node sees it now."""

    def __init__(self, model_id: bytes, layer_bytes: Sequence[int], mine: Holding, others: Sequence[Holding]) -> None:
        self.mine = mine
        self._model_id = model_id
        self._bytes = layer_bytes
        self._others = others
        self._nodes = [mine, *others]
        self._operators = _operators(self._nodes)
        self.others_with: list[set[bytes]] = [set() for _ in layer_bytes]
        """For each layer, the operators that hold it, this node left out."""
        for node in others:
            for layer in node.layers:
                self.others_with[layer].add(self._operators[node.peer_id])
        own = {self._operators[mine.peer_id]}
        self._all_with = [by | own if layer in mine.layers else by for layer, by in enumerate(self.others_with)]

    def is_safe(self, layer: int) -> bool:
        """Whether enough others hold a layer."""
        return len(self.others_with[layer]) >= ENOUGH_OPERATORS

    def short(self) -> set[int]:
        """Layers that too few hold, that somebody serves, and that this node does not."""
        lacking = {layer for layer in range(len(self._bytes)) if not self.is_safe(layer)} - self.mine.layers
        return {layer for layer in lacking if any(layer in node.layers | node.leaving for node in self._others)}

    def turn_of_mine(self, layer: int) -> int | None:
        """How many groups of candidates come before this node; None where it is none: it would add no operator, or
        has no room and nothing to spare. Who has room comes before who must drop something."""
        candidates = sorted(
            (node.room_bytes < self._bytes[layer], self._draw(node.peer_id, layer), node.peer_id)
            for node in self._nodes
            if self._may_take(node, layer)
        )
        places = [peer_id for _, _, peer_id in candidates]
        if self.mine.peer_id not in places:
            return None
        return places.index(self.mine.peer_id) // (ENOUGH_OPERATORS - len(self.others_with[layer]))

    def spare(self, kept: Iterable[int], num_bytes: int) -> int | None:
        """A layer that this node may drop to have so many bytes more; None where there is none.

        Enough others hold it, and of the nodes without room this one comes first: no two drop it at a time.
        """
        full = [node for node in self._nodes if node.room_bytes < min(self._bytes)]
        spare = []
        for layer in kept:
            if self.is_safe(layer) and self._bytes[layer] >= num_bytes:
                droppers = [node.peer_id for node in full if layer in node.layers]
                if min(droppers, key=lambda one: self._draw(one, layer), default=None) == self.mine.peer_id:
                    spare.append(layer)
        return max(spare, key=lambda layer: (len(self.others_with[layer]), -layer), default=None)

    def _may_take(self, node: Holding, layer: int) -> bool:
        """Whether a node lends to this model, would add an operator to a layer, and can make room."""
        if not node.layers or node.leaving or layer in node.layers:
            return False
        if self._operators[node.peer_id] in self._all_with[layer]:
            return False
        has_spare = any(len(self._all_with[one]) > ENOUGH_OPERATORS for one in node.layers)
        return node.room_bytes >= self._bytes[layer] or has_spare

    def _draw(self, peer_id: PeerId, layer: int) -> bytes:
        """By which all rank alike, in another order for every layer."""
        return hashlib.sha256(b"%b%d%b" % (self._model_id, layer, peer_id.encode())).digest()


def _operators(nodes: Sequence[Holding]) -> dict[PeerId, bytes]:
    """The operator of every node; where all have the same one, each node counts as one of its own."""
    named = {node.peer_id: node.operator for node in nodes}
    if len(set(named.values())) >= ENOUGH_OPERATORS:
        return named
    return {peer_id: peer_id.encode() for peer_id in named}
