"""Membership of a swarm in simulated time: no socket, no waiting, and a seed replays a run.

scenarios  `scripts/membership`: what membership must achieve, each with a verdict
simulator  many state machines, one heap of events, one seed
"""
