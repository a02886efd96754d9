"""Which layers of a checkpoint see a sliding window, which see the whole text, and which are not rotated."""

from __future__ import annotations

from collections.abc import Sequence

from node.model.config import MAX_CONTEXT, ModelType
from node.store.hf.reader import Reader

SLIDING, FULL = "sliding_attention", "full_attention"

Window = tuple[int | None, int, tuple[int, ...]]
"""The window, the first layer that has it, and the later layers that see everything nevertheless."""

NO_WINDOW: Window = (None, 0, ())


def read_window(reader: Reader, model_type: ModelType, num_layers: int) -> Window:
    """The sliding window and the layers that have it."""
    if model_type == "mistral":
        return _size(reader, 4096), 0, ()
    if model_type == "phi3":
        return _size(reader), 0, ()
    if model_type in ("qwen2", "qwen3"):
        return _qwen(reader, num_layers)
    if model_type in ("gemma2", "gemma3"):
        period = 2 if model_type == "gemma2" else reader.integer("sliding_window_pattern", MAX_CONTEXT)
        return _by_types(reader, [SLIDING if (layer + 1) % period else FULL for layer in range(num_layers)])
    if model_type == "smollm3" and reader.flag("use_sliding_window"):
        unrotated = unrotated_layers(reader, num_layers)
        return _by_types(reader, [SLIDING if layer in unrotated else FULL for layer in range(num_layers)])
    return NO_WINDOW


def unrotated_layers(reader: Reader, num_layers: int) -> tuple[int, ...]:
    """Layers of SmolLM3 whose queries and keys are not rotated: `no_rope_layers` has a 0 for each of them."""
    rotated = reader.raw.get("no_rope_layers")
    if rotated is None:
        interval = reader.integer("no_rope_layer_interval", MAX_CONTEXT)
        rotated = [int((layer + 1) % interval != 0) for layer in range(num_layers)]
    if not isinstance(rotated, list) or len(rotated) < num_layers or not all(value in (0, 1) for value in rotated):
        raise reader.refuse(f"its no_rope_layers are not a 0 or a 1 for each of its {num_layers} layers")
    return tuple(layer for layer in range(num_layers) if not rotated[layer])


def _size(reader: Reader, default: int | None = None) -> int | None:
    """The window; `null` means none, and a missing value means the default."""
    value = reader.raw.get("sliding_window", default)
    return None if value is None else reader.integer("sliding_window", MAX_CONTEXT, default)


def _qwen(reader: Reader, num_layers: int) -> Window:
    raw = reader.raw
    if not reader.flag("use_sliding_window") or raw.get("sliding_window", 4096) is None:
        kinds = [FULL] * num_layers
        first, window = 0, None
    else:
        first = min(num_layers, reader.integer("max_window_layers", MAX_CONTEXT, 28, low=0))
        window = reader.integer("sliding_window", MAX_CONTEXT, 4096)
        kinds = [FULL] * first + [SLIDING] * (num_layers - first)
    if raw.get("layer_types") not in (None, kinds):
        raise reader.refuse("its layer_types are not those that max_window_layers gives")
    return window, first, ()


def _by_types(reader: Reader, usual: Sequence[str]) -> Window:
    """The window of the layers that `layer_types` names; `usual` where it is left out."""
    types = reader.raw.get("layer_types") or usual
    if not isinstance(types, list) or len(types) != len(usual) or not set(types) <= {SLIDING, FULL}:
        raise reader.refuse(f"its layer_types are not {SLIDING} or {FULL} for each of its {len(usual)} layers")
    window = _size(reader)
    if window is None or SLIDING not in types:
        return NO_WINDOW
    return window, 0, tuple(layer for layer, kind in enumerate(types) if kind == FULL)
