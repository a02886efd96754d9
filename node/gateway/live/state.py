"""The state object of /ws: everything that an interface shows, always complete. It reads the disk, so it must not run
in the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict

from node.engine import Engine
from node.engine.models import ListedModel
from node.engine.running import Running
from node.gateway.http.context import GatewayContext
from node.node import Node
from node.operations.lending import lending_status
from node.operations.peers import peer_statuses
from node.privacy import Privacy
from node.process.allowance import total_memory
from node.serving.hosting import coverage_text, missing_layers, ranges_text, whole_layers
from node.session.session import Session
from node.version import VERSION
from protocol.identity import PeerId


def state_of(context: GatewayContext) -> dict[str, Any]:
    """NODE, PEERs, MODELs, TRANSFERs, REQUESTs and attempts to pair (SPEC.md, Gateway)."""
    listed = context.engine.models.usable()
    return {
        "node": node_status(context),
        "peers": peer_statuses(context.node),
        "models": [
            *(model_status(context.node, one) for one in listed),
            *partial_statuses(context.node, listed),
        ],
        "transfers": context.node.transfers.as_json(),
        "requests": request_statuses(context.engine),
        "lending": lending_status(context.node),
        "pairings": [
            asdict(view) | {"name": context.node.name_of(view.peer_id)} for view in context.node.trust.attempts()
        ],
    }


def node_status(context: GatewayContext) -> dict[str, Any]:
    """The NODE object."""
    node = context.node
    models = node.hosted.models
    return {
        "peer_id": node.peer_id,
        "name": node.name,
        "version": VERSION,
        "addrs": [str(address) for address in node.addresses],
        "gateway": context.url,
        "started_at": round(node.started_at, 3),
        "swarm": {"name": node.swarm_name, "open": node.config.swarm_key is None},
        "kernels": {"name": node.kernels.name, "threads": node.kernels.threads},
        "speed_gmacs": round(node.macs_per_s / 1e9, 2),
        "memory_bytes": node.config.memory_bytes or total_memory(),
        "default_privacy": (Privacy.STRICT if node.is_open else Privacy.AUTO).value,
        "model": models[0].name if models else context.engine.models.default_name,
    }


def partial_statuses(node: Node, listed: Sequence[ListedModel] = ()) -> list[dict[str, Any]]:
    """MODEL objects of models that are not `listed`, of which only parts, or nothing yet, came from peers; those that
    members published are among them."""
    whole = {model.model_id_bytes for model in node.hosted.models}
    whole |= {bytes.fromhex(one.summary.model_id) for one in listed}
    fetched = {bytes.fromhex(job.model) for job in node.transfers.running_by_id()}
    names = node.replicator.names()
    known = dict.fromkeys([*node.hosted.known, *names])
    return [
        _partial_status(node, model_id, model_id in fetched, *names.get(model_id, ("", "")))
        for model_id in known
        if model_id not in whole
    ]


def _partial_status(
    node: Node, model_id: bytes, is_fetched: bool, name: str, publisher: PeerId | str
) -> dict[str, Any]:
    """Args: name: what its publisher calls it; empty if nobody published it."""
    said = {
        "name": name or model_id.hex()[:16],
        "model_id": model_id.hex(),
        "named_by": node.name_of(PeerId(publisher)) or f"…{publisher[-6:]}" if name else "",
    }
    manifest, held = node.hosted.manifest(model_id), node.hosted.held(model_id)
    if manifest is None:
        return said | {"layers": 0, "held": "", "size_bytes": 0, "state": "remote", "coverage": ""}
    layers = whole_layers(manifest, held) - {manifest.config.num_layers}
    return said | {
        "layers": manifest.config.num_layers,
        "held": ranges_text(layers),
        "size_bytes": sum(ref.num_bytes for ref in manifest.units),
        "state": "fetching" if is_fetched else "partial" if layers else "remote",
        "disk_bytes": sum(ref.num_bytes for ref in held),
        "coverage": coverage_text(_missing(node, model_id)),
    }


def _missing(node: Node, model_id: bytes) -> set[int]:
    """Layers that neither a peer nor this node holds."""
    manifest = node.hosted.manifest(model_id)
    held = {ref.sha256 for ref in node.hosted.held(model_id)}
    held.update(*(peer.hosts(model_id) for peer in node.registry.usable()))
    return set() if manifest is None else missing_layers(manifest.units, held)


def model_status(node: Node, listed: ListedModel) -> dict[str, Any]:
    """The MODEL object of a model that can answer: all of it is here, or it is thin."""
    summary = listed.summary
    held = ranges_text(range(summary.num_layers))
    if summary.held_bytes < summary.weights_bytes:
        held = f"{100 * summary.held_bytes / summary.weights_bytes:.0f} %"
    pads_ready = node.pads.rows(bytes.fromhex(summary.model_id))
    if pads_ready:
        held += f", pads for {pads_ready} tokens"
    return {
        "name": listed.name,
        "model_id": summary.model_id,
        "layers": summary.num_layers,
        "held": held,
        "size_bytes": summary.weights_bytes,
        "weights_bytes": summary.weights_bytes,
        "held_bytes": summary.held_bytes,
        "checks_bytes": summary.checks_bytes,
        "pads_ready": pads_ready,
        "disk_bytes": summary.disk_bytes,
        "published": summary.model_id in node.published.ids(node.is_open),
        "state": "ready",
        "chat": summary.chat,
        "context": summary.context_length,
        "coverage": coverage_text(_missing(node, bytes.fromhex(summary.model_id))),
    }


def request_statuses(engine: Engine) -> list[dict[str, Any]]:
    """One REQUEST object for each request that runs or waits."""
    return [_request_status(running, session) for running, session in engine.requests()]


def _request_status(running: Running, session: Session | None) -> dict[str, Any]:
    counts = running.ledger.counts
    ttft_s = running.ttft_s
    return {
        "request": running.request.id,
        "state": "running" if running.started else "queued",
        "mode": (running.request.privacy if session is None else session.mode).value,
        "model": running.request.model.name,
        "tokens": running.answer.num_tokens,
        "tokens_per_s": round(running.tokens_per_s, 2),
        "ttft_s": None if ttft_s is None else round(ttft_s, 4),
        "chunks": {
            "sent": counts.sent,
            "verified": counts.verified,
            "rejected": counts.rejected,
            "hedged": counts.hedged,
            "local": counts.local,
        },
        "spans": [] if session is None else [asdict(span) for span in session.spans],
    }
