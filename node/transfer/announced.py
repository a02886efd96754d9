"""What peers hold according to their records: turns layers into the units that a model's manifest names."""

from __future__ import annotations

from collections.abc import Iterable

from node.serving.hosting import HostedModels
from node.transfer.holders import layers_of_ranges, units_of_record
from node.transport.registry import PeerRegistry
from protocol.link.hello import WorkKind
from protocol.membership.records import PeerRecord


class Announcements:
    """Updates the registry from the records of connected peers. Thread-safe."""

    def __init__(self, registry: PeerRegistry, hosted: HostedModels) -> None:
        self._registry = registry
        self._hosted = hosted

    def heard(self, records: Iterable[PeerRecord]) -> None:
        """These records are the newest of their owners."""
        for record in records:
            hosted = record.facts.capabilities.hosted
            announced = {}
            for model_id in {one.model_id for one in hosted}:
                manifest = self._hosted.manifest(model_id)
                units = frozenset[bytes]() if manifest is None else units_of_record(manifest, hosted, model_id)
                announced[model_id] = units
            leaving = {one.model_id: layers_of_ranges(one) for one in record.facts.capabilities.leaving}
            memory_bytes = record.facts.capabilities.memory_bytes
            works = WorkKind.LINEAR in record.facts.capabilities.work
            published = record.facts.capabilities.published
            self._registry.announce(record.peer_id, announced, leaving, memory_bytes, works, published)
