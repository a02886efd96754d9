"""Requests of a running node: they are queued, computed together in batches, and cancelled.

    request   a request, and the events for its client
    engine    takes requests and finds a runner for each    Engine
    runner    the thread of one model in one privacy mode: its session, its passes
    batch     decides which rows go into the next pass; no I/O
    running   one running request
    beginning  how a request begins in a session
    siblings  several answers to one prompt
    correction  what happens to an answer when a result that it used is wrong
    speculation  passes that compute guessed tokens too
    drafts       a smaller model that guesses them
    padding   passes after the end of an answer
    caches    caches of finished answers, for the next turn
    recorder  records what a pass did, for receipts and watchers
    ledger    counts for one request, for its receipt
    chunks    the history of chunks, for watchers
    watch     changes of a session's peers, in words
    models    the models that requests may name

A request gets the same bits whichever other requests are computed with it: kernels and decoder guarantee that.
"""

from node.engine.engine import Engine
from node.engine.request import GenerationRequest

__all__ = ["Engine", "GenerationRequest"]
