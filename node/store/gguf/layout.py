"""How the tensors of a GGUF file correspond to those of a Hugging Face checkpoint."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from node.model.config import ModelConfig
from node.store.hf.layout import EMBEDDING, FINAL_NORM, HEAD

_OUTER = {EMBEDDING: "token_embd.weight", HEAD: "output.weight", FINAL_NORM: "output_norm.weight"}
_OF_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_AFTER_ATTENTION = "post_attention_layernorm"
_LAYER_TENSOR = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


def name_in_gguf(config: ModelConfig, name: str) -> str:
    """The name of a checkpoint's tensor in the GGUF file."""
    if name in _OUTER:
        return _OUTER[name]
    matched = _LAYER_TENSOR.fullmatch(name)
    assert matched is not None, name
    of_layer = {**_OF_LAYER, _AFTER_ATTENTION: "ffn_norm" if config.norms == "before" else "post_attention_norm"}
    return f"blk.{matched[1]}.{of_layer[matched[2]]}.{matched[3]}"


def row_order(config: ModelConfig, name: str, is_paired: bool) -> npt.NDArray[np.intp] | None:
    """The indices in the file of the rows of a checkpoint's tensor; None if they are in the same order.

    ggml rotates neighbouring features of a Llama head, transformers rotates its two halves. So the converter reorders
    the rows of q and k (llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute).

    Args:
        is_paired: whether ggml rotates neighbouring features in the file's architecture.
    """
    if not is_paired or not name.rpartition(".")[0].endswith(("self_attn.q_proj", "self_attn.k_proj")):
        return None
    heads = config.num_heads if "q_proj" in name else config.num_kv_heads
    order = np.arange(heads * config.head_dim).reshape(heads, config.head_dim // 2, 2)
    return order.swapaxes(1, 2).reshape(-1)
