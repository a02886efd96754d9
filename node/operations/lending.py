"""`lending`: what this node computes for others; `lending_set`: the owner's rules for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psutil
from msgspec.structs import replace

from node.errors import OperationError
from node.node import Node
from node.operations.arguments import boolean


def lending(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Rules, refusal (why nothing is lent now, or null), bytes of this month, borrowers, the heat of the device."""
    return lending_status(node) | {"celsius": _celsius()}


def lending_set(node: Node, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Change `paused`, `only_idle`, `hours` ([from, to] or null), `monthly_bytes` (or null) and `replicate` (whether
    parts of models that members publish are held here); others stay."""
    changes: dict[str, Any] = {
        name: boolean(arguments, name) for name in ("paused", "only_idle", "replicate") if name in arguments
    }
    if "hours" in arguments:
        changes["hours"] = _hours(arguments["hours"])
    if "monthly_bytes" in arguments:
        limit = arguments["monthly_bytes"]
        if limit is not None and type(limit) is not int:
            raise OperationError("`monthly_bytes` is a number of bytes, or null for no limit")
        changes["monthly_bytes"] = limit
    node.lending.set_rules(replace(node.lending.rules, **changes))
    return lending_status(node)


def lending_status(node: Node) -> dict[str, Any]:
    """The same without the heat; borrowers and models with their names."""
    facts = node.lending.as_json() | {"replicates": node.replicates}
    for one in facts["borrowers"]:
        one["name"] = node.name_of(one["peer_id"])
        one["model"] = node.model_name(bytes.fromhex(one["model_id"])) or one["model_id"][:16]
    return facts


def _hours(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(hour) is int for hour in value):
        raise OperationError("`hours` is two hours of the day, such as [22, 6], or null for always")
    return value[0], value[1]


def _celsius() -> float | None:
    """The hottest sensor; None if the system tells none."""
    sensors: Mapping[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    return max((float(one.current) for group in sensors.values() for one in group), default=None)
