"""Swarms of real node processes on loopback, and what the other programs and the tests do with them.

swarm          node processes, each with its own data directory, started and ended by this program alone
programs       modules of this repository as programs of their own
asking         answers of an engine in this process, whole
honest_client  asks a node's gateway as any program does, checks every answer, times it
hostile_node   a node that breaks its promises on purpose
hostile_blobs  sources of weights that lie or dawdle
connections    TCP connections of a process, ended from outside
gateway_twin   the WebSocket of a node's gateway, with a script behind it
real_models    SmolLM2, fetched once and kept
random_model   models of any shape with random weights
pty_program    a program in a pseudo-terminal of its own
"""
