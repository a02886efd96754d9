"""Modules of this repository as programs of their own, whatever folder they are started in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def program(module: str) -> list[str]:
    """The command that runs a module, to be started in an `environment`. `-P`: what lies around has no say in it."""
    return [sys.executable, "-P", "-m", module]


def environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`given`, with this repository first among the places where Python looks for modules."""
    places = [str(ROOT), *filter(None, [given.get("PYTHONPATH")])]
    return {**given, "PYTHONPATH": os.pathsep.join(places)}
