"""Which peer holds what of a model, as peers announce it. This is used to find data, never to trust it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from node.serving.hosting import layer_index, units_of_layers, whole_layers
from node.store.manifest import Manifest
from node.transfer.choice import LayerView
from node.transfer.coverage import Holding
from node.transfer.download import Holder
from node.transport.registry import ConnectedPeer
from protocol.identity import PeerId
from protocol.membership.records import HostedLayers


def holders_of(peers: Iterable[ConnectedPeer], model_id: bytes, manifest: Manifest | None) -> dict[PeerId, Holder]:
    """Peers that serve anything of a model, with the blobs that they may hold.

    A peer that serves a part has the manifest, and perhaps the files: it answers NOT_FOUND if it does not have them.
    """
    files = {model_id} if manifest is None else {model_id, *manifest.files.values()}
    holders = {}
    for peer in peers:
        if peer.serves(model_id):
            holders[peer.peer_id] = Holder(peer, peer.hosts(model_id) | files)
    return holders


def layer_views(peers: Iterable[ConnectedPeer], model_id: bytes, manifest: Manifest) -> list[LayerView]:
    """Every layer, and the head as one more, with the operators that hold and keep it."""
    sizes = layer_sizes(manifest)
    operators: list[set[bytes]] = [set() for _ in sizes]
    speeds = [0.0] * len(sizes)
    for peer in peers:
        for layer in held_layers(manifest, peer.stated(model_id)) - peer.leaving.get(model_id, frozenset()):
            operators[layer].add(operator_of(peer.peer_id, peer.hello.operator))
            speeds[layer] += peer.hello.macs_per_s
    return [LayerView(i, sizes[i], len(operators[i]), speeds[i]) for i in range(len(sizes))]


def held_layers(manifest: Manifest, hashes: Collection[bytes]) -> set[int]:
    """Layers all of whose units are among these hashes."""
    return whole_layers(manifest, [ref for ref in manifest.units if ref.sha256 in hashes])


def units_of_record(manifest: Manifest, hosted: Iterable[HostedLayers], model_id: bytes) -> frozenset[bytes]:
    """Hashes of the units in a record's layer ranges."""
    layers = {layer for one in hosted if one.model_id == model_id for layer in layers_of_ranges(one)}
    return frozenset(ref.sha256 for ref in units_of_layers(manifest, layers))


def layers_of_ranges(hosted: HostedLayers) -> frozenset[int]:
    """The layers that a record's ranges of one model mean."""
    return frozenset(layer for start, end in hosted.ranges for layer in range(start, end))


def holdings_of(
    peers: Iterable[ConnectedPeer], model_id: bytes, manifests: Mapping[bytes, Manifest]
) -> list[Holding]:
    """What each peer holds of a model, and its memory beside all layers of the models whose manifests are known."""
    holdings = []
    sizes = {known: layer_sizes(manifest) for known, manifest in manifests.items()}
    for peer in peers:
        layers = {known: held_layers(manifest, peer.stated(known)) for known, manifest in manifests.items()}
        used = sum(sizes[known][layer] for known in manifests for layer in layers[known])
        leaving = peer.leaving.get(model_id, frozenset()) & layers[model_id]
        kept = frozenset(layers[model_id] - leaving)
        holdings.append(
            Holding(
                peer.peer_id, operator_of(peer.peer_id, peer.hello.operator), kept, leaving, peer.memory_bytes - used
            )
        )
    return holdings


def layer_sizes(manifest: Manifest) -> list[int]:
    """Bytes of every layer's units; the head is one more layer."""
    sizes = [0] * (manifest.config.num_layers + 1)
    for ref in manifest.units:
        sizes[layer_index(manifest, ref)] += ref.num_bytes
    return sizes


def operator_of(peer_id: PeerId, stated: bytes) -> bytes:
    """Who runs a node; one that states no operator counts as one of its own."""
    return stated if any(stated) else peer_id.encode()
