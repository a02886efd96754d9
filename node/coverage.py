"""Which layers of a model nobody holds, and how people are told. The head apart, which is computed at home."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from node.hosting import ranges_text
from node.store.unit import UnitRef

COMPLETE = "complete"


def missing_layers(refs: Iterable[UnitRef], held: Collection[bytes]) -> set[int]:
    """Layers of which a unit is not among these hashes."""
    return {ref.layer for ref in refs if ref.layer is not None and ref.sha256 not in held}


def coverage_text(missing: Collection[int]) -> str:
    """`complete`, or `layers 3-5 are missing`."""
    if not missing:
        return COMPLETE
    return f"{layers_text(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def layers_text(layers: Collection[int]) -> str:
    """`layer 3`, or `layers 3-5, 7`."""
    return f"layer{'s' * (len(layers) > 1)} {ranges_text(set(layers))}"
