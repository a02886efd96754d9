"""Membership of a swarm in simulated time: no socket, no waiting, and a seed replays a run.

scenarios  `scripts/membership`: what membership is to show, with a verdict each
simulator  many state machines, one heap of events, one seed
"""
