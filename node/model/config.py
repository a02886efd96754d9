"""The architecture of a model, as few numbers as the arithmetic needs.

`ModelConfig` is what every other part works with. It says nothing about files: `hf_config` reads it from a Hugging
Face `config.json`, the store's manifest keeps it. It must not grow a field that no arithmetic reads.
"""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from msgspec import Struct
from msgspec.structs import asdict

ModelType = Literal["llama", "mistral", "qwen2", "qwen3"]
RopeKind = Literal["default", "linear", "llama3"]
MODEL_TYPES: tuple[str, ...] = get_args(ModelType)
ROPE_KINDS: tuple[str, ...] = get_args(RopeKind)
UnitKind = Literal["qkv", "o", "gate_up", "down", "head"]

LAYER_KINDS: tuple[UnitKind, ...] = ("qkv", "o", "gate_up", "down")
"""The fused linear layers of one decoder layer, in the order in which they are applied."""

# Limits of this implementation: generous to any real model, small enough that no field makes us allocate madly.
MAX_DIMENSION = 1 << 16
MAX_VOCABULARY = 1 << 20
MAX_LAYERS = 1024
MAX_CONTEXT = 1 << 25


class RopeConfig(Struct, frozen=True):
    """Rotary position embedding: the kind of frequency scaling and its parameters."""

    kind: RopeKind
    theta: float
    factor: float = 1.0
    """Linear and llama3: by what the frequencies are divided."""
    low_freq_factor: float = 1.0
    """Llama3 alone."""
    high_freq_factor: float = 1.0
    """Llama3 alone."""
    original_context_length: int = 0
    """Llama3 alone: the context the model was pretrained with."""


class ModelConfig(Struct, frozen=True):
    """A decoder-only transformer of the Llama family."""

    model_type: ModelType
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    rms_norm_eps: float
    rope: RopeConfig
    sliding_window: int | None
    """A token sees itself and the `sliding_window - 1` tokens before it; None: all before it."""
    first_window_layer: int
    """Layers before this one see everything even where there is a sliding window."""
    attention_bias: bool
    """The q, k and v projections have a bias."""
    output_bias: bool
    """The attention's output projection has a bias."""
    mlp_bias: bool
    """The gate, up and down projections have a bias."""
    qk_norm: bool
    """Queries and keys are RMS-normed by head before the rotation (Qwen3)."""
    tie_word_embeddings: bool
    eos_ids: tuple[int, ...]
    bos_id: int | None

    def window(self, layer: int) -> int | None:
        """The sliding window of `layer`, None where it sees the whole context."""
        return None if layer < self.first_window_layer else self.sliding_window

    def unit_shape(self, kind: UnitKind) -> tuple[int, int]:
        """Output and input features (N, K) of a fused linear layer."""
        attention = self.num_heads * self.head_dim
        shapes: dict[UnitKind, tuple[int, int]] = {
            "qkv": (attention + 2 * self.num_kv_heads * self.head_dim, self.hidden_size),
            "o": (self.hidden_size, attention),
            "gate_up": (2 * self.intermediate_size, self.hidden_size),
            "down": (self.hidden_size, self.intermediate_size),
            "head": (self.vocab_size, self.hidden_size),
        }
        return shapes[kind]

    def has_bias(self, kind: UnitKind) -> bool:
        """Whether a fused linear layer is followed by a bias."""
        if kind == "qkv":
            return self.attention_bias
        return {"o": self.output_bias, "gate_up": self.mlp_bias, "down": self.mlp_bias, "head": False}[kind]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values under the fields' names, for the manifest."""
        return asdict(self) | {"rope": asdict(self.rope), "eos_ids": list(self.eos_ids)}

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        """The inverse of `to_mapping`, strict in the fields' names and types.

        Raises:
            ValueError: a field is missing, unknown, of another type or out of range.
        """
        values = dict(mapping)
        rope = values.pop("rope", None)
        eos_ids = values.pop("eos_ids", None)
        if not isinstance(rope, dict) or not isinstance(eos_ids, list):
            raise ValueError("rope must be a map and eos_ids a list")
        values["rope"] = RopeConfig(**_checked(RopeConfig, rope))
        values["eos_ids"] = tuple(_typed("eos_ids", value, "int") for value in eos_ids)
        config = cls(**_checked(cls, values))
        config._check_ranges()
        return config

    def _check_ranges(self) -> None:
        """Raises ValueError for numbers that no model has, before anything is computed or allocated from them."""
        sizes = (self.hidden_size, self.intermediate_size, self.num_heads * self.head_dim)
        in_range = {
            "size": all(0 < size <= MAX_DIMENSION for size in sizes),
            "num_layers": 0 < self.num_layers <= MAX_LAYERS,
            "vocab_size": 0 < self.vocab_size <= MAX_VOCABULARY,
            "context_length": 0 < self.context_length <= MAX_CONTEXT,
            "head_dim": self.head_dim > 0 and self.head_dim % 2 == 0,
            "num_kv_heads": self.num_kv_heads > 0 and self.num_heads % max(1, self.num_kv_heads) == 0,
            "sliding_window": self.sliding_window is None or self.sliding_window > 0,
            "rms_norm_eps": 0 < self.rms_norm_eps < 1,
            "rope": self.rope.theta > 0 and self.rope.factor > 0 and self.rope.kind in ROPE_KINDS,
            "model_type": self.model_type in MODEL_TYPES,
        }
        wrong = [name for name, fine in in_range.items() if not fine]
        if wrong:
            raise ValueError(f"{wrong[0]} is out of range")


def _checked(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """`values`, where their names and types are those of the class `kind`."""
    annotations = kind.__annotations__
    if values.keys() != annotations.keys():
        raise ValueError(f"fields differ: {sorted(values.keys() ^ annotations.keys())}")
    return {name: _typed(name, value, annotations[name]) for name, value in values.items()}


def _typed(name: str, value: Any, annotation: str) -> Any:
    """`value`, where it has the type that `annotation` names."""
    legal: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "int | None": (int, type(None)),
        "float": (float,),
        "bool": (bool,),
        "ModelType": (str,),
        "RopeKind": (str,),
        "RopeConfig": (RopeConfig,),
        "tuple[int, ...]": (tuple,),
    }
    if type(value) not in legal[annotation]:
        raise ValueError(f"{name} is a {type(value).__name__}, not {annotation}")
    return value
