"""The smallest models of each kind, written by the libraries that also write the real ones."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from node.store.hf.config import parse_config
from node.store.hf.layout import tensor_shapes

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}{{ eos_token }}"
    "{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NAMESPACE = (
    "{%- set ns = namespace(found=false, last='') -%}{%- for message in messages[::-1] -%}{%- if not ns.found and "
    "message.content is string -%}{%- set ns.found = true -%}{%- set ns.last = message.content.split('x')[-1] -%}"
    "{%- endif -%}{%- endfor -%}{{ ns.last ~ strftime_now('%Y') }}{%- if not ns.found %}{{ raise_exception('none') }}"
    "{%- endif -%}{% macro line(a, b=2) %}{{ a * b }}{% endmacro %}{{ line('ab', 3) | upper | replace('A', 'b') }}"
)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 16,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": [2],
}
LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.1], "long_factor": [1.0, 9.0]}
FAMILIES: tuple[dict[str, Any], ...] = (
    CONFIG,
    {
        **CONFIG,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    {**CONFIG, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    {
        **CONFIG,
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
    },
    {**CONFIG, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 4},
    {
        **CONFIG,
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "head_dim": 4,
        "sliding_window": 4,
        "query_pre_attn_scalar": 16,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    {
        **CONFIG,
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "pad_token_id": 0,
        "original_max_position_embeddings": 32,
        "rope_scaling": LONGROPE,
    },
)
WORDS = ["<unk>", "<s>", "</s>", "▁", "▁a", "a", "b", "ab", *(f"<0x{byte:02X}>" for byte in range(0xE2, 0xEA))]


def safetensors_file(**changes: Any) -> bytes:
    """The weights of a model of this configuration."""
    config = parse_config({**CONFIG, **changes}, {}, "a tiny model")
    generator = np.random.default_rng(1)
    tensors = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in tensor_shapes(config)}
    return bytes(save(tensors))


def tokenizers() -> list[bytes]:
    """A `tokenizer.json` of each kind."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:40]
    byte_level = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    byte_level.add_special_tokens([AddedToken("<|end|>", special=True)])
    pieces = {word: number for number, word in enumerate(WORDS)}
    fallback = Tokenizer(models.BPE(pieces, [("a", "b")], unk_token="<unk>", byte_fallback=True))
    fallback.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    unigram = Tokenizer(models.Unigram([(word, -float(number)) for word, number in pieces.items()], 0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    words = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split("a", "isolated")
    return [one.to_str().encode() for one in (byte_level, fallback, unigram, words)]


def tokenizer_config() -> dict[str, Any]:
    """A `tokenizer_config.json` with a chat template and tokens of its own."""
    added = {"3": {"content": "<think>", "special": False, "lstrip": False}}
    return {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
        "chat_template": TEMPLATE,
        "added_tokens_decoder": added,
    }


def write_checkpoint(folder: Path) -> Path:
    """A whole checkpoint that can be imported."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(safetensors_file())
    (folder / "tokenizer.json").write_bytes(tokenizers()[1])
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config()))
    return folder


def gguf_files() -> list[bytes]:
    """Whole models as GGUF: with pieces of SentencePiece, and with a byte-level vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        return [_gguf(Path(folder) / f"{model}.gguf", model) for model in ("llama", "gpt2")]


def _gguf(path: Path, model: str) -> bytes:
    import gguf  # it takes a moment to load

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model(model)
    writer.add_token_list(WORDS)
    writer.add_token_types([2, 3, 3, *[1] * 5, *[6] * 8])
    writer.add_token_scores([-float(number) for number in range(len(WORDS))])
    writer.add_token_merges(["a b"])
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    generator = np.random.default_rng(2)
    for name, shape in _gguf_shapes().items():
        writer.add_tensor(name, generator.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def _gguf_shapes() -> dict[str, tuple[int, ...]]:
    layer = {
        "attn_norm": (8,),
        "attn_q": (8, 8),
        "attn_k": (4, 8),
        "attn_v": (4, 8),
        "attn_output": (8, 8),
        "ffn_norm": (8,),
        "ffn_gate": (32, 8),
        "ffn_up": (32, 8),
        "ffn_down": (8, 32),
    }
    outer = {"token_embd.weight": (16, 8), "output.weight": (16, 8), "output_norm.weight": (8,)}
    return {**outer, **{f"blk.0.{name}.weight": shape for name, shape in layer.items()}}
