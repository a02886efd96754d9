"""How a request begins in a session: with which cache, with which prediction, and what its client is told."""

from __future__ import annotations

from collections.abc import Sequence

from node.engine.caches import KeptCaches, cache_of_earlier
from node.engine.padding import PADDED_MODES
from node.engine.request import Note, Started
from node.engine.running import Running
from node.engine.siblings import cache_of_sibling
from node.engine.speculation import speculation_for
from node.engine.watch import explain
from node.session.session import Session


def begin(
    running: Running, session: Session, caches: KeptCaches, others: Sequence[Running], sends_all_rows: bool
) -> None:
    """Begin a request.

    Args:
        caches: of finished answers in this session.
        others: requests that run in it.
        sends_all_rows: never reuse the beginning of an earlier prompt if rows are shown to others.
    """
    prompt_tokens = len(running.request.prompt_ids)
    fresh = session.decoder.new_cache(reach=prompt_tokens + running.request.params.max_tokens)
    kept = cache_of_sibling(running, others)
    kept = kept or cache_of_earlier(running, caches, session.plan.outside, sends_all_rows)
    running.is_seen = lambda: session.plan.outside in PADDED_MODES
    running.begin(kept if kept is not None and kept.stretched == fresh.stretched else fresh)
    if session.plan.cost is not None:  # else there was no choice, and measuring this device would take a while
        running.predicted = session.predict(session.plan, prompt_tokens)
    running.speculation = None if running.pool else speculation_for(session, running)
    why = explain(session, running.predicted)
    running.tell(Started(session.mode.value, running.request.model.name, why, prompt_tokens))
    if session.note:
        running.tell(Note(session.note))
