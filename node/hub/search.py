"""Finds models on the Hugging Face hub by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from node.errors import TransportError
from node.hub.short_names import SHORT_NAMES
from node.model.config import MODEL_TYPES

MOST = 20
TIMEOUT_S = 10.0
FIELDS = ["downloads", "gated", "config", "safetensors"]
ALSO_KNOWN_AS = ("gemma3_text", "mistral3")
"""Types of checkpoints whose text part is a model by itself."""


class FoundModel(Struct, frozen=True):
    """One repository of the hub."""

    repo: str
    num_weights: int | None
    """None where the hub does not say."""
    downloads: int
    """In the last 30 days, as the hub counts."""
    gated: bool
    """Whether its terms must be accepted first."""
    model_type: str
    """Empty where the hub does not say, as for files in GGUF."""

    @property
    def runs_here(self) -> bool | None:
        """Whether this program knows the type; None where it can be told only from the files."""
        return self.model_type in (*MODEL_TYPES, *ALSO_KNOWN_AS) if self.model_type else None


def search_hub(text: str) -> list[FoundModel]:
    """Models for text whose names hold `text`, those with most downloads first, 20 at most.

    Raises:
        TransportError: the hub cannot be reached, or refuses.
    """
    import httpx2
    from huggingface_hub import constants, errors
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import get_session

    asked: dict[str, str | int | list[str]] = {
        "search": text,
        "pipeline_tag": "text-generation",
        "sort": "downloads",
        "limit": MOST,
        "expand": FIELDS,
    }
    try:
        # The library's own search tries again for half a minute where there is no network.
        answer = get_session().get(
            f"{constants.ENDPOINT}/api/models", params=asked, headers=build_hf_headers(), timeout=TIMEOUT_S
        )
        answer.raise_for_status()
        found = answer.json()
    except errors.OfflineModeIsEnabled as exc:
        raise TransportError("HF_HUB_OFFLINE forbids to ask the hub: unset it, search again") from exc
    except (errors.HfHubHTTPError, httpx2.HTTPError, ValueError) as exc:
        raise TransportError(
            f"{constants.ENDPOINT} cannot be asked ({type(exc).__name__}): check the network, search again; "
            "`kekahyde-node pull smollm2` works from the Python registry too"
        ) from exc
    return [_read(model) for model in found if isinstance(model, dict)]


def short_names_like(text: str) -> dict[str, str]:
    """Short names whose name or repository holds `text`, with their repositories."""
    wanted = text.lower()
    return {name: known.repo for name, known in SHORT_NAMES.items() if wanted in name or wanted in known.repo.lower()}


def _read(model: Mapping[str, Any]) -> FoundModel:
    weights, config = model.get("safetensors"), model.get("config")
    total = weights.get("total") if isinstance(weights, dict) else None
    model_type = config.get("model_type") if isinstance(config, dict) else None
    downloads = model.get("downloads")
    return FoundModel(
        str(model.get("id", "")),
        total if isinstance(total, int) else None,
        downloads if isinstance(downloads, int) else 0,
        bool(model.get("gated")),
        model_type if isinstance(model_type, str) else "",
    )
