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
    """Plain rows, for paired devices that may read prompts. `auto` chooses it where the user has let such devices
    read prompts and they make the answer faster; no mode falls back to it."""


MAX_PAD_OUTPUT = 4096
"""Largest number of which the passes behind a prompt may be asked to be a multiple."""
DEFAULT_RECHECK = 0.05
"""The share of the results of the user's own devices that is computed again, if the user does not say another."""
