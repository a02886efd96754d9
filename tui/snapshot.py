"""The state of a node as its gateway sends it. Unknown fields are ignored; missing fields are empty, not an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Control characters could control the terminal; the others change the direction of the text after them (U+202A ...,
# U+2066 ...).
_UNSAFE = {
    code: None
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def clean(text: str) -> str:
    """The text without characters that could control a terminal; line ends and tabs stay."""
    return text.replace("\r\n", "\n").translate(_UNSAFE)


def short_id(peer_id: str) -> str:
    """The end of a peer's id: enough to tell peers apart."""
    return f"…{peer_id[-6:]}" if len(peer_id) > 7 else peer_id


class Fields:
    """Reads typed values from a JSON object that may hold anything."""

    def __init__(self, value: Any) -> None:
        self._fields: Mapping[str, Any] = value if isinstance(value, Mapping) else {}

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        return clean(value) if isinstance(value, str) else ""

    def number(self, name: str) -> float:
        return self.maybe_number(name) or 0.0

    def maybe_number(self, name: str) -> float | None:
        value = self._fields.get(name)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def count(self, name: str) -> int:
        return int(self.number(name))

    def flag(self, name: str) -> bool:
        return self._fields.get(name) is True

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._fields.get(name)
        return tuple(clean(item) for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    def objects(self, name: str) -> list[Fields]:
        value = self._fields.get(name)
        return [Fields(item) for item in value] if isinstance(value, list) else []

    def numbers(self, name: str) -> tuple[float, ...]:
        value = self._fields.get(name)
        items = value if isinstance(value, list) else []
        return tuple(float(item) for item in items if isinstance(item, (int, float)) and not isinstance(item, bool))

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._fields.get(name)
        return value if isinstance(value, Mapping) else {}

    def object(self, name: str) -> Fields:
        return Fields(self._fields.get(name))

    def counts(self, name: str) -> dict[str, int]:
        value = self._fields.get(name)
        if not isinstance(value, Mapping):
            return {}
        return {str(key): int(count) for key, count in value.items() if isinstance(count, (int, float))}


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The node itself."""

    peer_id: str = ""
    name: str = ""
    version: str = ""
    addrs: tuple[str, ...] = ()
    gateway: str = ""
    swarm: str = ""
    swarm_open: bool = False
    kernels: str = ""
    threads: int = 0
    speed_gmacs: float = 0.0
    default_privacy: str = ""
    model: str = ""

    @classmethod
    def of(cls, fields: Fields) -> NodeFacts:
        swarm, kernels = fields.object("swarm"), fields.object("kernels")
        return cls(
            fields.text("peer_id"),
            fields.text("name"),
            fields.text("version"),
            fields.texts("addrs"),
            fields.text("gateway"),
            swarm.text("name"),
            swarm.flag("open"),
            kernels.text("name"),
            kernels.count("threads"),
            fields.number("speed_gmacs"),
            fields.text("default_privacy"),
            fields.text("model"),
        )


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """One peer as this node sees it."""

    peer_id: str
    name: str = ""
    named_here: bool = False
    state: str = ""
    addrs: tuple[str, ...] = ()
    rtt_ms: float | None = None
    roles: tuple[str, ...] = ()
    layers: str = ""
    speed_gmacs: float = 0.0
    version: str = ""
    excluded: str = ""
    connected: bool = False
    paired: bool = False
    operator: str = ""
    memory_bytes: int = 0
    queued: int = 0
    chunks: int = 0
    rejected: int = 0
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def label(self) -> str:
        """What it is called: its name, or the end of its id."""
        return self.name or short_id(self.peer_id)

    @classmethod
    def of(cls, fields: Fields) -> PeerFacts:
        return cls(
            fields.text("peer_id"),
            fields.text("name"),
            fields.flag("named_here"),
            fields.text("state"),
            fields.texts("addrs"),
            fields.maybe_number("rtt_ms"),
            fields.texts("roles"),
            fields.text("layers"),
            fields.number("speed_gmacs"),
            fields.text("version"),
            fields.text("excluded"),
            fields.flag("connected"),
            fields.flag("paired"),
            fields.text("operator"),
            fields.count("memory_bytes"),
            fields.count("queued"),
            fields.count("chunks"),
            fields.count("rejected"),
            fields.count("bytes_up"),
            fields.count("bytes_down"),
        )


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that the node holds, fetches or knows about."""

    name: str
    model_id: str = ""
    layers: int = 0
    held: str = ""
    size_bytes: int = 0
    state: str = ""
    coverage: str = ""
    chat: bool = False
    """Whether it has a chat template; without one it continues text."""
    context: int | None = None
    """How many tokens it can read at once, if the node says so."""
    disk_bytes: int = 0
    published: bool = False
    """Whether the swarm is asked to hold it."""
    named_by: str = ""
    """Which device calls it so; empty if this one does."""
    is_whole: bool = True
    """Whether all weights of a model that answers are here."""

    @classmethod
    def of(cls, fields: Fields) -> ModelFacts:
        context = fields.maybe_number("context")
        return cls(
            fields.text("name"),
            fields.text("model_id"),
            fields.count("layers"),
            fields.text("held"),
            fields.count("size_bytes"),
            fields.text("state"),
            fields.text("coverage"),
            fields.flag("chat"),
            None if context is None else int(context),
            fields.count("disk_bytes"),
            fields.flag("published"),
            fields.text("named_by"),
            fields.count("held_bytes") >= fields.count("weights_bytes"),
        )


@dataclass(frozen=True, slots=True)
class TransferFacts:
    """The transfer of a model to this node."""

    id: str
    kind: str = ""
    model: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_s: float = 0.0
    sources: int = 0
    state: str = ""
    error: str = ""

    @classmethod
    def of(cls, fields: Fields) -> TransferFacts:
        return cls(
            fields.text("id"),
            fields.text("kind"),
            fields.text("model"),
            fields.count("done_bytes"),
            fields.count("total_bytes"),
            fields.number("rate_bytes_s"),
            fields.count("sources"),
            fields.text("state"),
            fields.text("error"),
        )


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """Layers of an answer, and the device that computes them; this one if it has no id."""

    first: int
    end: int
    peer_id: str = ""
    name: str = ""
    lent: str = ""
    step_ms: float | None = None
    tokens: int = 0
    direct: int = 0

    @classmethod
    def of(cls, fields: Fields) -> SpanFacts:
        where = fields.text("peer_id"), fields.text("name"), fields.text("lent")
        counts = fields.count("tokens"), fields.count("direct")
        return cls(fields.count("first"), fields.count("end"), *where, fields.maybe_number("step_ms"), *counts)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """A generation on the node, from any client."""

    request: str
    state: str = ""
    mode: str = ""
    model: str = ""
    tokens: int = 0
    tokens_per_s: float = 0.0
    ttft_s: float | None = None
    chunks: dict[str, int] = field(default_factory=dict)
    spans: tuple[SpanFacts, ...] = ()

    @classmethod
    def of(cls, fields: Fields) -> RequestFacts:
        return cls(
            fields.text("request"),
            fields.text("state"),
            fields.text("mode"),
            fields.text("model"),
            fields.count("tokens"),
            fields.number("tokens_per_s"),
            fields.maybe_number("ttft_s"),
            fields.counts("chunks"),
            tuple(SpanFacts.of(span) for span in fields.objects("spans")),
        )


@dataclass(frozen=True, slots=True)
class PairingFacts:
    """An attempt to pair this device with another."""

    peer_id: str
    name: str = ""
    state: str = ""
    code: str = ""
    reason: str = ""

    @property
    def label(self) -> str:
        """What the other device is called."""
        return self.name or short_id(self.peer_id)

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in ("paired", "ended")

    @classmethod
    def of(cls, fields: Fields) -> PairingFacts:
        return cls(*(fields.text(name) for name in ("peer_id", "name", "state", "code", "reason")))


@dataclass(frozen=True, slots=True)
class BorrowerFacts:
    """What one peer had this device compute of one model."""

    peer_id: str
    name: str = ""
    model: str = ""
    requests: int = 0
    rows: int = 0
    num_bytes: int = 0

    @property
    def label(self) -> str:
        """What the peer is called."""
        return self.name or short_id(self.peer_id)

    @classmethod
    def of(cls, fields: Fields) -> BorrowerFacts:
        counts = (fields.count(name) for name in ("requests", "rows", "num_bytes"))
        return cls(fields.text("peer_id"), fields.text("name"), fields.text("model"), *counts)


@dataclass(frozen=True, slots=True)
class LendingFacts:
    """What this device does for others, and its owner's rules."""

    refusal: str = ""
    paused: bool = False
    only_idle: bool = False
    hours: tuple[int, int] | None = None
    monthly_bytes: int | None = None
    month_bytes: int = 0
    borrowers: tuple[BorrowerFacts, ...] = ()
    replicates: bool = False
    """Whether it holds parts of models that members publish."""

    @classmethod
    def of(cls, fields: Fields) -> LendingFacts:
        rules = fields.object("rules")
        hours = rules.numbers("hours")
        limit = rules.maybe_number("monthly_bytes")
        return cls(
            fields.text("refusal"),
            rules.flag("paused"),
            rules.flag("only_idle"),
            (int(hours[0]), int(hours[1])) if len(hours) == 2 else None,
            None if limit is None else int(limit),
            fields.count("month_bytes"),
            tuple(BorrowerFacts.of(item) for item in fields.objects("borrowers")),
            fields.flag("replicates"),
        )


@dataclass(frozen=True, slots=True)
class NodeState:
    """The content of one `state` event."""

    node: NodeFacts = NodeFacts()
    peers: tuple[PeerFacts, ...] = ()
    models: tuple[ModelFacts, ...] = ()
    transfers: tuple[TransferFacts, ...] = ()
    requests: tuple[RequestFacts, ...] = ()
    pairings: tuple[PairingFacts, ...] = ()
    lending: LendingFacts = LendingFacts()

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> NodeState:
        fields = Fields(event)
        return cls(
            NodeFacts.of(fields.object("node")),
            tuple(PeerFacts.of(item) for item in fields.objects("peers")),
            tuple(ModelFacts.of(item) for item in fields.objects("models")),
            tuple(TransferFacts.of(item) for item in fields.objects("transfers")),
            tuple(RequestFacts.of(item) for item in fields.objects("requests")),
            tuple(PairingFacts.of(item) for item in fields.objects("pairings")),
            LendingFacts.of(fields.object("lending")),
        )

    def model(self, name: str) -> ModelFacts | None:
        """The model of this name or id."""
        return next((model for model in self.models if name in (model.name, model.model_id)), None)

    @property
    def helpers(self) -> int:
        """How many peers can get work now."""
        return sum(peer.state == "alive" and peer.connected and not peer.excluded for peer in self.peers)
