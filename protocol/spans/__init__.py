"""Spans: runs of decoder layers that a device of the same owner computes, with their KV cache.

binding   what a result is bound to, and its digest
onward    the devices that a result goes on to, and the seal of the client
messages  open, step, pass, result, close
quick     headers of steps and of their results, by a pattern
"""
