"""A compact Llama for training: the architecture of the checkpoint that `train.py` writes.

Module names are those of a Hugging Face checkpoint, so `state_dict()` is the file. There is no cache and no
masking beyond causality: every training row is full. Generating text is the inference engine's business.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL_STD = 0.02


@dataclass(frozen=True, slots=True)
class StoryConfig:
    """Sizes of the model; hidden and intermediate sizes are multiples of 32 so that weights split evenly."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    max_position_embeddings: int = 512
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def to_hugging_face(self, dtype: torch.dtype) -> dict[str, object]:
        """The config.json that loads this model as `LlamaForCausalLM`."""
        return asdict(self) | {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": INITIAL_STD,
            "rope_scaling": None,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": None,
            "torch_dtype": str(dtype).removeprefix("torch."),
            "use_cache": True,
        }


class Dropout(nn.Module):
    """Drops whole features of a row: one mask for all positions, so drawing it costs next to nothing."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, hidden: Tensor) -> Tensor:  # [B, S, D]
        if not self.training or self.rate == 0.0:
            return hidden
        keep_rate = 1 - self.rate
        keep = torch.empty(hidden.shape[0], 1, hidden.shape[2], device=hidden.device).bernoulli_(keep_rate)
        return hidden * (keep / keep_rate).to(hidden.dtype)


class RMSNorm(nn.Module):
    """Llama's norm: the statistic in float32 whatever the activations are."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:  # [B, S, D]
        return functional.rms_norm(hidden.float(), self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Causal attention with rotary positions and shared key/value heads."""

    def __init__(self, config: StoryConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.num_shared = config.num_attention_heads // config.num_key_value_heads
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Mix `hidden` [B, S, D] over positions; `cosine` and `sine` are [S, head_dim]."""
        batch, length, _ = hidden.shape

        def heads(projected: Tensor) -> Tensor:  # -> [B, H, S, head_dim]
            return projected.view(batch, length, -1, self.head_dim).transpose(1, 2)

        query = rotate(heads(self.q_proj(hidden)), cosine, sine)
        key = rotate(heads(self.k_proj(hidden)), cosine, sine).repeat_interleave(self.num_shared, dim=1)
        value = heads(self.v_proj(hidden)).repeat_interleave(self.num_shared, dim=1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return output


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: StoryConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:  # [B, S, D]
        output: Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return output


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: StoryConfig, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:  # [B, S, D]
        hidden = hidden + self.dropout(self.self_attn(self.input_layernorm(hidden), cosine, sine))
        output: Tensor = hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden)))
        return output


class Body(nn.Module):
    """Everything but the output head; a module of its own because checkpoints name it `model`."""

    def __init__(self, config: StoryConfig, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.dropout = Dropout(dropout)


class StoryModel(nn.Module):
    """The causal language model, its output head tied to the embedding."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: StoryConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config, dropout)
        cosine, sine = rotary_tables(config)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self._initialise()

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, S, V] of the next token after each of `tokens` [B, S] int64."""
        length = tokens.shape[1]
        cosine, sine = self.cosine[:length], self.sine[:length]
        hidden = self.model.dropout(self.model.embed_tokens(tokens))
        for layer in self.model.layers:
            hidden = layer(hidden, cosine, sine)
        return functional.linear(self.model.norm(hidden), self.model.embed_tokens.weight)

    def loss(self, window: Tensor) -> Tensor:
        """Mean cross entropy in nats a token over windows [B, S + 1]: each token predicts the next."""
        logits = self(window[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten())

    def _initialise(self) -> None:
        """Small normal weights; those that write into the residual stream shrink with depth."""
        depth_scale = (2 * self.config.num_hidden_layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                is_residual_output = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=INITIAL_STD * (depth_scale if is_residual_output else 1.0))


def rotary_tables(config: StoryConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine [max positions, head_dim], both halves of a head alike (Hugging Face's order)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32)
    angles = torch.outer(positions, config.rope_theta**-exponents).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each head's pairs (i, i + head_dim / 2) by their position's angle: [B, H, S, head_dim]."""
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (heads * cosine + turned * sine).to(heads.dtype)
