"""Guards: which swarm members hold which place in `split`, for how long, and why (SPEC.md section 2).

separation  what two peers have in common: operator, subnet, host
book        guards in their places, when each peer was seen, and their file
rules       who becomes a guard and when one is replaced; no I/O, `now` and a random generator are arguments
keeper      the book of a running node    GuardKeeper
watch       notes at intervals which peers are connected
"""

from node.guards.keeper import GuardKeeper

__all__ = ["GuardKeeper"]
