"""Names and shapes of the tensors in a Hugging Face checkpoint of a given architecture."""

from __future__ import annotations

from collections.abc import Iterator

from node.model.config import LAYER_KINDS, ModelConfig, NormPlaces, UnitKind

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"
NORM_SUFFIX = "norm.weight"
"""The names of all norms end in this, and no others."""

_PROJECTIONS: dict[UnitKind, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The fused units: the rows of `qkv` are those of q, then k, then v; the rows of `gate_up` are gate's, then up's."""
_FUSED: dict[UnitKind, str] = {"qkv": "self_attn.qkv_proj", "gate_up": "mlp.gate_up_proj"}
"""Units that Phi-3 stores as one tensor, with the rows in that order."""

_NORMS: dict[NormPlaces, dict[str, str]] = {
    "before": {"attention": "input_layernorm", "mlp": "post_attention_layernorm"},
    "around": {
        "attention": "input_layernorm",
        "mlp": "pre_feedforward_layernorm",
        "attention_after": "post_attention_layernorm",
        "mlp_after": "post_feedforward_layernorm",
    },
    "after": {"attention_after": "post_attention_layernorm", "mlp_after": "post_feedforward_layernorm"},
}

IGNORED_SUFFIX = ".rotary_emb.inv_freq"
"""A table in old Llama checkpoints; it is computed here instead."""


def projections(config: ModelConfig, layer: int, kind: UnitKind) -> Iterator[tuple[str, int]]:
    """Prefix (without `.weight`) and number of rows of each tensor that is fused into a layer's unit, in order."""
    attention = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    rows: dict[UnitKind, tuple[int, ...]] = {
        "qkv": (attention, keys, keys),
        "o": (config.hidden_size,),
        "gate_up": (config.intermediate_size, config.intermediate_size),
        "down": (config.hidden_size,),
    }
    is_fused = config.model_type == "phi3" and kind in _FUSED
    names, sizes = ((_FUSED[kind],), (sum(rows[kind]),)) if is_fused else (_PROJECTIONS[kind], rows[kind])
    for name, num_rows in zip(names, sizes, strict=True):
        yield f"model.layers.{layer}.{name}", num_rows


def norm_names(config: ModelConfig, layer: int) -> dict[str, tuple[str, int]]:
    """Name and size of each norm of a layer, by its purpose: attention and mlp for norms before them, attention_after
    and mlp_after for norms after them, and q and k."""
    prefix = f"model.layers.{layer}"
    names = {place: (f"{prefix}.{name}.weight", config.hidden_size) for place, name in _NORMS[config.norms].items()}
    if config.qk_norm:
        heads = (config.num_heads, config.num_kv_heads) if config.qk_norm_whole else (1, 1)
        names["q"] = (f"{prefix}.self_attn.q_norm.weight", heads[0] * config.head_dim)
        names["k"] = (f"{prefix}.self_attn.k_norm.weight", heads[1] * config.head_dim)
    return names


def gain_offset(config: ModelConfig) -> float:
    """What to add to a norm's stored weights to get its gain: Gemma stores gains minus one."""
    return 1.0 if config.model_type in ("gemma2", "gemma3") else 0.0


def layer_shapes(config: ModelConfig, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of one decoder layer."""
    for kind in LAYER_KINDS:
        num_inputs = config.unit_shape(kind)[1]
        for prefix, num_rows in projections(config, layer, kind):
            yield f"{prefix}.weight", (num_rows, num_inputs)
            if config.has_bias(kind):
                yield f"{prefix}.bias", (num_rows,)
    for name, size in norm_names(config, layer).values():
        yield name, (size,)


def tensor_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor; in a tied model the embedding is also the head."""
    table = (config.vocab_size, config.hidden_size)
    yield EMBEDDING, table
    if not config.tie_word_embeddings:
        yield HEAD, table
    for layer in range(config.num_layers):
        yield from layer_shapes(config, layer)
    yield FINAL_NORM, (config.hidden_size,)
