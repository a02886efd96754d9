"""`doctor`: what is wrong with a running node and its surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.doctor.running import running_findings
from node.node import Node


def doctor(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The findings. This takes up to a few seconds, because it tries every peer's addresses."""
    return {"findings": [finding.as_json() for finding in running_findings(node)]}
