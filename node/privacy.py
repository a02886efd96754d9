"""The privacy modes that a user may ask for."""

from __future__ import annotations

from enum import Enum


class Privacy(Enum):
    """What a user may ask for (SPEC.md section 2)."""

    AUTO = "auto"
    LOCAL = "local"
    SPLIT = "split"
    STRICT = "strict"
    TRUSTED = "trusted"
    """Plain rows, for paired devices that may read prompts; never chosen by `auto`, and no mode falls back to it."""
