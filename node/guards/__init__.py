"""Guards: which swarm members hold which place in `split`, for how long, and why not others (SPEC.md section 2).

separation  how far apart two peers are: operator, subnet, host
book        guards in their places, since when this node knows each peer, and their file
rules       who becomes a guard, and when one is replaced: purely, with `now` and a generator passed in
keeper      the book of a running node    GuardKeeper
watch       looks now and then who is there
"""

from node.guards.keeper import GuardKeeper

__all__ = ["GuardKeeper"]
