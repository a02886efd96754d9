"""Swarms of real node processes on loopback, and tools for the other programs and the tests.

swarm          node processes, each with its own data directory, started and ended only by this program
forked         starts programs as forks of a process that has imported them
programs       starts modules of this repository as separate programs
asking         complete answers of an engine in this process
honest_client  uses a node's gateway as any program does, checks every answer and measures its time
owner          what the owner of several devices does: pairs them
hostile_node   a node that breaks the protocol on purpose
jumping_clock  a node whose time of day jumps
hostile_blobs  sources of weights that lie or are slow
connections    TCP connections of a process, ended from outside
gateway_twin   a fake WebSocket of a node's gateway, driven by a script
real_models    SmolLM2, fetched once and kept
raw_echo       answers with as many bytes as are asked for: the least that an exchange costs
stopwatches    how long a thread is in which functions
requantized    a GGUF file with every matrix in Q8_0
random_model   models of any shape with random weights
pty_program    a program in its own pseudo-terminal
"""
