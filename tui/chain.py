"""The way of a token through the user's own devices, in one line for each."""

from __future__ import annotations

from collections.abc import Sequence

from tui.snapshot import NodeState, SpanFacts, short_id
from tui.words import count_words


def chain_of(state: NodeState) -> tuple[SpanFacts, ...]:
    """Where the layers of the running answer are computed; empty if no answer goes through whole layers elsewhere."""
    return next((request.spans for request in state.requests if request.spans), ())


def chain_lines(spans: Sequence[SpanFacts]) -> str:
    """The stages of a chain, one below the other, from the embedding to the head."""
    lines = ["┌ this device: the text, the embedding"]
    for span in spans:
        where = span.name or short_id(span.peer_id) if span.peer_id else "this device"
        where = f"other devices, in {span.lent}" if span.lent else where
        facts = [f"layers {span.first}-{span.end - 1}"]
        if span.step_ms is not None:
            facts.append(f"{span.step_ms:.1f} ms a token")
        if span.tokens:
            facts.append(f"{count_words(span.tokens, 'token')} in its cache")
        if span.direct:
            facts.append("straight from the device above")
        lines.append(f"├ {where}: {', '.join(facts)}")
    lines.append("└ this device: the head, the next token")
    return "\n".join(lines)
