"""Spans: runs of decoder layers that devices of the same owner compute for this one, with their KV cache.

device   one such device in a session: its connection, its caches, its steps
crew     all such devices of a session: what they send, and who is left
steps    the rows of a pass, as they travel
edges    which results go straight from a device to the next
stage    one part of the chain: layers, and where they are computed
chain    all layers of a model in one run: steps travel from stage to stage    SpanChain
recheck  computes a secret share of the results again
witness  another device, which computes again what this one cannot
"""

from node.spans.chain import SpanChain

__all__ = ["SpanChain"]
