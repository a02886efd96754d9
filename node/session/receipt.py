"""The receipt of an answer: what was computed, where, by whom, and how it was verified. It states observed facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import asdict

from node.execution.account import Reason
from node.execution.ledger import ChunkCounts
from node.execution.peer import SessionPeer
from node.model.generate import FinishReason
from node.planning.placement import Place
from node.session.plan_line import PlanLine
from node.spans.recheck import Recheck
from node.spans.stage import Stage
from protocol.linear.messages import Role

RoleName = Literal["pad", "share", "plain"]


def role_name(role: Role) -> RoleName:
    """The name of a role in interfaces."""
    names: dict[Role, RoleName] = {Role.PAD: "pad", Role.SHARE: "share", Role.PLAIN: "plain"}
    return names[role]


LEFT_FOR = {
    Reason.LATE: "cost more time than allowed: it gets no work for a while, others or this device do its part",
    Reason.FAILING: "answered with errors: it gets no work for a while, others or this device do its part",
    Reason.NOISY: "sent unrequested messages: it gets no more work, others or this device do its part",
}
"""What the user is told about a peer that was left."""


class PeerShare(Struct, frozen=True):
    """One peer's part in an answer."""

    peer_id: str
    role: RoleName
    chunks: int
    """Requests sent to it."""
    rejected: int
    """Number of its results that failed verification."""
    status: str
    name: str = ""
    """Its name for people; empty if it has none."""

    @classmethod
    def of(cls, peer: SessionPeer) -> PeerShare:
        return cls(peer.peer_id, role_name(peer.role), peer.chunks, peer.rejected, peer.standing, peer.name)


class SpanShare(Struct, frozen=True):
    """A run of layers of the answer, and where it was computed."""

    first: int
    end: int
    """Layers `[first, end)`."""
    peer_id: str | None
    """The device of the user that computed them; None: this one."""
    name: str
    step_ms: float | None
    """Median time of a step of one row; None if there was none."""
    tokens: int
    """Tokens in its KV caches, of all texts of the session."""
    direct: int = 0
    """Steps whose rows came to it straight from the device before."""
    lent: str = ""
    """The privacy mode in which devices of others compute the units of these layers; empty: they do not."""

    @classmethod
    def of(cls, stage: Stage) -> SpanShare:
        row_s, device = stage.row_s.median, stage.device
        return cls(
            stage.layers.start,
            stage.layers.stop,
            None if device is None else device.peer_id,
            "" if device is None else device.peer.name,
            None if row_s is None else round(1000 * row_s, 3),
            0 if device is None else device.tokens(stage.layers),
            stage.direct,
            stage.lent,
        )

    @property
    def where(self) -> str:
        """Who computed them, for people."""
        if self.lent:
            return f"in {self.lent}"
        return self.name or ("this device" if self.peer_id is None else f"…{self.peer_id[-6:]}")


def way_text(spans: Sequence[SpanShare]) -> str:
    """The way of a token, in one line."""
    way = [f"layers {span.first}-{span.end - 1} {span.where}" for span in spans]
    return " → ".join(["here", *way, "here"])


class Rechecked(Struct, frozen=True):
    """How many results of the user's own devices were computed again. Each row of each span counts."""

    rows: int
    """Rows that devices returned, in the session."""
    equal: int
    """Rows that were computed again and were the same to the last bit."""
    wrong: int = 0
    """Rows that were computed again here and were not."""
    elsewhere: int = 0
    """Rows that another device computed again, because this one does not hold their layers."""
    differ: int = 0
    """Of those, the ones that were not the same: nothing tells which of the two devices is wrong."""

    @classmethod
    def of(cls, seen: Recheck) -> Rechecked:
        """As counted so far."""
        return cls(seen.rows_seen, seen.rows_equal, seen.rows_wrong, seen.rows_elsewhere, seen.rows_differ)

    @property
    def words(self) -> str:
        """For people."""
        again = self.equal + self.wrong + self.differ
        if self.wrong:
            return f"{self.wrong} of {again} rows that were computed again were wrong"
        if self.differ:
            return f"{self.differ} of {again} rows that were computed again by another device differ"
        if not self.equal:
            return "no result has been computed again"
        by = "by another device" if self.elsewhere == self.equal else "here and by another device"
        return f"{self.equal} of {self.rows} rows computed again {by if self.elsewhere else 'here'}, all equal"


_PLAIN_FIELDS = (
    "text",
    "tokens",
    "prompt_tokens",
    "cached_tokens",
    "mode",
    "asked",
    "model",
    "model_id",
    "ttft_s",
    "tokens_per_s",
    "finish_reason",
    "placement",
    "timings_s",
    "note",
)


class Speculated(Struct, frozen=True):
    """Guessed tokens of an answer."""

    window: int
    """Rows of every pass with guesses."""
    passes: int
    right: int
    """Guesses that needed no pass of their own."""
    draft: str = ""
    """Name of the model that guessed; empty: the text itself was looked up."""


class Receipt(Struct, frozen=True):
    """Everything that is known about how an answer was computed."""

    text: str
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    """Tokens of the prompt that an earlier answer had left in a cache: they were not computed again."""
    mode: str
    asked: str
    """The privacy mode that was asked for; `mode` is never weaker."""
    model: str
    model_id: str
    peers: list[PeerShare]
    chunks: ChunkCounts
    bytes_up: int
    bytes_down: int
    ttft_s: float
    """Seconds from the prompt to its first token."""
    tokens_per_s: float
    """Tokens after the first, over the time from the first to the last."""
    finish_reason: FinishReason
    pads_made: int
    """Rows of pads that this device made."""
    pads_paired: int
    """Rows of pads that a paired device was asked for."""
    pad_s: float
    """Seconds in which this device made pads before the clock started."""
    timings_s: dict[str, float]
    placement: dict[str, Place]
    """By kind of unit: whether it was lent. Chunks of lent units that nobody computed in time were computed here."""
    weights_here_bytes: int
    """Size of the units whose weights this device had."""
    checks_bytes: int
    """Size of the checks with which it verified results."""
    plan: PlanLine | None
    """The prediction."""
    note: str | None
    spans: list[SpanShare] = field(default_factory=list)
    """Who computed which layers, if whole layers were computed elsewhere."""
    rechecked: Rechecked | None = None
    """None if no layers were computed elsewhere."""
    speculation: Speculated | None = None
    """What guessing tokens brought; None where none were guessed."""

    @property
    def readers(self) -> list[str]:
        """Devices that could read the prompt: each that got a plain row."""
        return list(dict.fromkeys(peer.peer_id for peer in self.peers if peer.role == "plain" and peer.chunks))

    def as_json(self) -> dict[str, Any]:
        """The line that `run --json` prints last."""
        return {
            "type": "receipt",
            "text": self.text,
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "mode": self.mode,
            "asked": self.asked,
            "model": self.model,
            "model_id": self.model_id,
            "peers": [asdict(peer) for peer in self.peers],
            "chunks": asdict(self.chunks),
            "bytes": {"up": self.bytes_up, "down": self.bytes_down},
            "ttft_s": round(self.ttft_s, 6),
            "tokens_per_s": round(self.tokens_per_s, 3),
            "finish_reason": self.finish_reason,
            "placement": self.placement,
            "memory": {"weights_here_bytes": self.weights_here_bytes, "checks_bytes": self.checks_bytes},
            "could_read": self.readers,
            "pads": {"rows": self.pads_made, "paired_rows": self.pads_paired, "seconds": round(self.pad_s, 6)},
            "timings_s": {name: round(seconds, 6) for name, seconds in sorted(self.timings_s.items())},
            "plan": None if self.plan is None else asdict(self.plan),
            "note": self.note,
            "spans": [asdict(span) for span in self.spans],
            "rechecked": None if self.rechecked is None else asdict(self.rechecked),
            "speculation": None if self.speculation is None else asdict(self.speculation),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Receipt:
        """The receipt that another process printed with `as_json`."""
        plan = value["plan"]
        return cls(
            **{name: value[name] for name in _PLAIN_FIELDS},
            peers=[PeerShare(**peer) for peer in value["peers"]],
            chunks=ChunkCounts(**value["chunks"]),
            bytes_up=value["bytes"]["up"],
            bytes_down=value["bytes"]["down"],
            weights_here_bytes=value["memory"]["weights_here_bytes"],
            checks_bytes=value["memory"]["checks_bytes"],
            pads_made=value["pads"]["rows"],
            pads_paired=value["pads"]["paired_rows"],
            pad_s=value["pads"]["seconds"],
            plan=None if plan is None else PlanLine(**plan),
            spans=[SpanShare(**span) for span in value.get("spans", ())],
            rechecked=Rechecked(**value["rechecked"]) if value.get("rechecked") else None,
            speculation=Speculated(**value["speculation"]) if value.get("speculation") else None,
        )

    def as_line(self) -> str:
        """One line for the user."""
        chunks = self.chunks
        trusted = sum(peer.chunks > peer.rejected for peer in self.peers)
        by = f"{trusted} peer{'' if trusted == 1 else 's'}"
        if self.spans:
            lent = [f"{chunks.verified} chunks verified"] if chunks.verified else []
            return "; ".join([f"{self.mode}: {self._spans_text}", *lent, *self._common_parts()])
        computed = f"{chunks.verified} chunks by {by}, all verified" if chunks.verified else "no peer"
        parts = [
            f"{self.mode}: {computed}, {chunks.local} here",
            f"{chunks.rejected} rejected, {chunks.hedged} hedged",
            *self._common_parts(),
        ]
        if self.pads_paired:
            parts.append(f"{self.pads_paired} rows of pads by a paired device, {self.pads_made} here")
        return "; ".join(parts)

    @property
    def _spans_text(self) -> str:
        """The way of a token, and how it was checked."""
        way = way_text(self.spans)
        return f"{way}; {'nothing is computed again' if self.rechecked is None else self.rechecked.words}"

    def _common_parts(self) -> list[str]:
        parts = [
            f"{self.bytes_up / 1e6:.2f} MB up, {self.bytes_down / 1e6:.2f} MB down",
            f"{self.prompt_tokens}+{self.tokens} tokens, first after {self.ttft_s:.2f} s",
            f"{self.tokens_per_s:.1f} tokens/s",
        ]
        if self.speculation is not None:
            told = self.speculation
            by = f" by {told.draft}" if told.draft else ""
            parts.append(f"{told.right} tokens were guessed right{by}, in {told.passes} passes")
        if self.readers:
            parts.append(f"{', '.join(self.readers)} could read the prompt")
        return parts
