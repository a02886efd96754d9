"""Spans: runs of decoder layers that a device of the same owner computes, with their KV cache.

messages  open, step, result, close, and the digest of a result
"""
