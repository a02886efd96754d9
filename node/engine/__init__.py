"""Requests of a running node: queued, computed side by side, batched where they can be, cancelled.

    request   what is asked, and what its asker is told
    engine    takes requests, finds each a runner    Engine
    runner    the thread of one model in one privacy mode: its session, its passes
    batch     whose rows go into the next pass, decided purely
    running   one request under way
    caches    of answers that ended, for the next turn
    recorder  what a pass did, for receipts and watchers
    ledger    what a request took part in, for its receipt
    chunks    the lives of chunks, for whoever watches
    watch     what becomes of a session's peers, in words
    models    the models that requests may name

A token of one request is the same bits in whatever company it is computed: kernels and decoder promise that.
"""

from node.engine.engine import Engine
from node.engine.request import GenerationRequest

__all__ = ["Engine", "GenerationRequest"]
