"""One part of a chain: consecutive layers, and where they are computed."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from node.measures.series import Series
from node.model.cache import KVCache
from node.model.layers import UnitLayers
from node.spans.device import SpanDevice


class Stage:
    """Layers that are computed by a device, or here.

    Args:
        by: a device of the same owner, or the layers that are opened here.
        macs: multiply-accumulates of one row.
        lent: the privacy mode in which devices of others compute the units of these layers; empty: they do not. They
            must not see how a pass is cut for the user's own devices, so they get it whole.
    """

    def __init__(self, layers: range, by: SpanDevice | UnitLayers, macs: int, lent: str = "") -> None:
        self.lent = lent
        self.macs = macs
        self.layers = layers
        self.device = by if isinstance(by, SpanDevice) else None
        self.here = by if isinstance(by, UnitLayers) else None
        self.row_s = Series()
        """Seconds from a step of one row to its result."""
        self.direct = 0
        """Steps whose rows came straight from the device before."""
        self.gone = 0
        """How often in this pass a device had lost a cache."""
        self._computed: WeakKeyDictionary[KVCache, int] = WeakKeyDictionary()
        """Tokens of each sequence whose keys and values are here."""

    def held(self, cache: KVCache) -> int:
        """Tokens of a sequence whose keys and values are where the stage is computed."""
        if self.device is not None:
            remote = self.device.held(cache, self.layers)
            remote.held = min(remote.held, cache.length)
            return remote.held
        return min(self._computed.get(cache, 0), cache.length)

    def computed_here(self, cache: KVCache, length: int) -> None:
        """This device has computed a sequence up to there."""
        self._computed[cache] = length
