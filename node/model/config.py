"""The architecture of a model: only the numbers that the arithmetic needs.

Every other part works with `ModelConfig`. It says nothing about files: `store.hf.config` reads it from a Hugging Face
`config.json`, and the store's manifest keeps it. It must not get a field that no arithmetic reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, Self, get_args

from msgspec import Struct
from msgspec.structs import fields

from node.kernels.interface import Activation

ModelType = Literal["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "smollm3", "olmo2", "granite"]
RopeKind = Literal["default", "linear", "llama3", "yarn", "longrope"]
NormPlaces = Literal["before", "around", "after"]
MODEL_TYPES: tuple[str, ...] = get_args(ModelType)
ROPE_KINDS: tuple[str, ...] = get_args(RopeKind)
UnitKind = Literal["qkv", "o", "gate_up", "down", "head"]

LAYER_KINDS: tuple[UnitKind, ...] = ("qkv", "o", "gate_up", "down")
"""The fused linear layers of one decoder layer, in the order in which they are applied."""

# Limits of this implementation: large enough for any real model, small enough that no field causes huge allocations.
MAX_DIMENSION = 1 << 16
MAX_VOCABULARY = 1 << 20
MAX_LAYERS = 1024
MAX_CONTEXT = 1 << 25
MAX_FACTOR = 1e12


class RopeConfig(Struct, frozen=True):
    """Rotary position embedding: the kind of frequency scaling and its parameters."""

    kind: RopeKind
    theta: float
    factor: float = 1.0
    """Linear, llama3 and yarn: the divisor of the frequencies."""
    low_freq_factor: float = 1.0
    """Only llama3."""
    high_freq_factor: float = 1.0
    """Only llama3."""
    original_context_length: int = 0
    """Llama3, yarn and longrope: the context the model was pretrained with."""
    rotary_dim: int = 0
    """Number of rotated features of a head, its first ones; 0: all."""
    attention_factor: float = 1.0
    """Yarn and longrope: the factor of cosine and sine."""
    beta_fast: float = 32.0
    """Only yarn: frequencies with at least so many turns in the original context are not changed."""
    beta_slow: float = 1.0
    """Only yarn: frequencies with at most so many turns are divided by the factor."""
    truncate: bool = True
    """Only yarn: the first and last pair between these limits are rounded to whole numbers."""
    short_factors: tuple[float, ...] = ()
    """Only longrope: the divisor of each pair's frequency for a text within the original context."""
    long_factors: tuple[float, ...] = ()
    """Only longrope: the same for a longer text."""

    def rotated(self, head_dim: int) -> int:
        """How many features of a head are rotated."""
        return self.rotary_dim or head_dim

    def stretches(self, num_tokens: int) -> bool:
        """Whether a text that may grow to so many tokens is rotated by the long factors."""
        return self.kind == "longrope" and num_tokens > self.original_context_length

    def fits(self, head_dim: int) -> bool:
        """Whether its numbers make sense for heads of this size."""
        positive = (self.theta, self.factor, self.attention_factor, self.beta_fast, self.beta_slow)
        num_factors = self.rotated(head_dim) // 2 if self.kind == "longrope" else 0
        return (
            self.kind in ROPE_KINDS
            and all(0 < value < MAX_FACTOR for value in (*positive, *self.short_factors, *self.long_factors))
            and 0 <= self.rotary_dim < head_dim
            and self.rotary_dim % 2 == 0
            and len(self.short_factors) == len(self.long_factors) == num_factors
            and 0 <= self.original_context_length <= MAX_CONTEXT
            and (self.kind not in ("yarn", "longrope") or self.original_context_length > 0)
            and (self.kind != "yarn" or self.theta > 1)
        )


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
    """Layers before this one see everything even if there is a sliding window."""
    attention_bias: bool
    """The q, k and v projections have a bias."""
    output_bias: bool
    """The attention's output projection has a bias."""
    mlp_bias: bool
    """The gate, up and down projections have a bias."""
    qk_norm: bool
    """Queries and keys are RMS-normed per head before the rotation (Qwen3)."""
    tie_word_embeddings: bool
    eos_ids: tuple[int, ...]
    bos_id: int | None
    norms: NormPlaces = "before"
    """Where a layer's attention and MLP are RMS-normed: their input, their output, or both."""
    qk_norm_whole: bool = False
    """With `qk_norm`: all queries of a token are normed as one row, and all its keys (OLMo 2)."""
    activation: Activation = "silu"
    full_layers: tuple[int, ...] = ()
    """Further layers that see everything despite a sliding window, ascending."""
    unrotated_layers: tuple[int, ...] = ()
    """Layers whose queries and keys are not rotated, ascending (SmolLM3)."""
    window_rope: RopeConfig | None = None
    """The rotation of layers with a window, if it is a different one (Gemma 3)."""
    attention_scale: float | None = None
    """The factor of products of queries and keys; None: 1 / sqrt(head_dim)."""
    attention_softcap: float | None = None
    """If set, a scaled product x becomes softcap * tanh(x / softcap) (Gemma 2)."""
    logits_softcap: float | None = None
    """The same for logits."""
    embedding_multiplier: float = 1.0
    """The factor of embeddings (Gemma, Granite)."""
    residual_multiplier: float = 1.0
    """The factor of the outputs of attention and MLP before they are added (Granite)."""
    logits_divisor: float = 1.0
    """The divisor of logits (Granite)."""

    def window(self, layer: int) -> int | None:
        """The sliding window of `layer`; None if it sees the whole context."""
        return None if layer < self.first_window_layer or layer in self.full_layers else self.sliding_window

    @property
    def ropes(self) -> tuple[RopeConfig, ...]:
        """The rotations of the model: that of most layers, then that of layers with a window if it differs."""
        return (self.rope,) if self.window_rope is None else (self.rope, self.window_rope)

    def rotation(self, layer: int) -> int | None:
        """Index in `ropes` of the rotation of `layer`; None for a layer without rotation."""
        if layer in self.unrotated_layers:
            return None
        return 0 if self.window_rope is None or self.window(layer) is None else 1

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
        """Plain values under the fields' names, for the manifest; sparse fields only if not the default."""
        return _plain(self)

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        """The inverse of `to_mapping`, strict in the fields' names and types.

        Raises:
            ValueError: a field is missing, unknown, of a wrong type, out of range, or states a default.
        """
        values = {**_defaults(cls), **mapping}
        for name in ("rope", "window_rope"):
            if name == "rope" or values[name] is not None:
                values[name] = _rope(name, values.get(name))
        for name in ("eos_ids", "full_layers", "unrotated_layers"):
            values[name] = _items(name, values.get(name), int)
        config = cls(**_checked(cls, values))
        config.check_ranges()
        if config.to_mapping() != mapping:
            raise ValueError("a field is written that has its default value")
        return config

    def check_ranges(self) -> None:
        """Raises ValueError for impossible numbers, before anything is computed or allocated from them."""
        sizes = (self.hidden_size, self.intermediate_size, self.num_heads * self.head_dim)
        softcaps = [value for value in (self.attention_softcap, self.logits_softcap) if value is not None]
        factors = (self.embedding_multiplier, self.residual_multiplier, self.logits_divisor, *softcaps)
        in_range = {
            "size": all(0 < size <= MAX_DIMENSION for size in sizes),
            "num_layers": 0 < self.num_layers <= MAX_LAYERS,
            "vocab_size": 0 < self.vocab_size <= MAX_VOCABULARY,
            "context_length": 0 < self.context_length <= MAX_CONTEXT,
            "head_dim": self.head_dim > 0 and self.head_dim % 2 == 0,
            "num_kv_heads": self.num_kv_heads > 0 and self.num_heads % max(1, self.num_kv_heads) == 0,
            "sliding_window": self.sliding_window is None or self.sliding_window > 0,
            "rms_norm_eps": 0 < self.rms_norm_eps < 1,
            "rope": all(rope.fits(self.head_dim) for rope in self.ropes),
            "model_type": self.model_type in MODEL_TYPES,
            "norms": self.norms in get_args(NormPlaces),
            "activation": self.activation in get_args(Activation),
            "qk_norm_whole": self.qk_norm or not self.qk_norm_whole,
            "full_layers": _are_layers(self.full_layers, self.num_layers),
            "unrotated_layers": _are_layers(self.unrotated_layers, self.num_layers),
            "a multiplier": all(0 < value < MAX_FACTOR for value in factors),
            "attention_scale": self.attention_scale is None or 0 < self.attention_scale < MAX_FACTOR,
        }
        wrong = [name for name, fine in in_range.items() if not fine]
        if wrong:
            raise ValueError(f"{wrong[0]} is out of range")


SPARSE_FIELDS = frozenset(
    (
        *(
            "norms",
            "qk_norm_whole",
            "activation",
            "full_layers",
            "unrotated_layers",
            "window_rope",
            "attention_scale",
        ),
        *("attention_softcap", "logits_softcap", "embedding_multiplier", "residual_multiplier", "logits_divisor"),
        *("rotary_dim", "attention_factor", "beta_fast", "beta_slow", "truncate", "short_factors", "long_factors"),
    )
)
"""Fields that a manifest holds only if they differ from their default, so that a model that was imported before these
fields existed keeps its id."""


def _defaults(kind: type) -> dict[str, Any]:
    """The sparse fields of a class with their defaults."""
    return {field.name: field.default for field in fields(kind) if field.name in SPARSE_FIELDS}


def _plain(config: Any) -> dict[str, Any]:
    """The fields of a configuration as CBOR values."""
    defaults = _defaults(type(config))
    plain: dict[str, Any] = {}
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if name in SPARSE_FIELDS and value == defaults[name]:
            continue
        if isinstance(value, RopeConfig):
            value = _plain(value)
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


def _rope(name: str, mapping: Any) -> RopeConfig:
    if not isinstance(mapping, dict):
        raise ValueError(f"{name} must be a map")
    values = {**_defaults(RopeConfig), **mapping}
    for factors in ("short_factors", "long_factors"):
        values[factors] = _items(factors, values[factors], float)
    return RopeConfig(**_checked(RopeConfig, values))


def _items(name: str, values: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple) or not all(type(value) is kind for value in values):
        raise ValueError(f"{name} must be a list of {kind.__name__}")
    return tuple(values)


def _are_layers(layers: Sequence[int], num_layers: int) -> bool:
    """Whether these are layers of the model, each once and in order."""
    ascending = all(before < after for before, after in pairwise(layers))
    return ascending and all(0 <= layer < num_layers for layer in layers)


def _checked(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """`values`; raises ValueError unless their names and types are those of the class `kind`."""
    annotations = kind.__annotations__
    if values.keys() != annotations.keys():
        raise ValueError(f"fields differ: {sorted(map(str, values.keys() ^ annotations.keys()))}")
    return {name: _typed(name, value, annotations[name]) for name, value in values.items()}


def _typed(name: str, value: Any, annotation: str) -> Any:
    """`value`; raises ValueError unless it has the type that `annotation` names."""
    legal: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "int | None": (int, type(None)),
        "float": (float,),
        "float | None": (float, type(None)),
        "bool": (bool,),
        "ModelType": (str,),
        "RopeKind": (str,),
        "NormPlaces": (str,),
        "Activation": (str,),
        "RopeConfig": (RopeConfig,),
        "RopeConfig | None": (RopeConfig, type(None)),
        "tuple[int, ...]": (tuple,),
        "tuple[float, ...]": (tuple,),
    }
    if type(value) not in legal[annotation]:
        raise ValueError(f"{name} is a {type(value).__name__}, not {annotation}")
    return value
