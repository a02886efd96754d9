"""Every bound of the gateway. SPEC.md section «Gateway» has the table."""

from __future__ import annotations

DEFAULT_PORT = 11435
"""Taken where it is free and the data directory is the default one; else any free port."""

MAX_BODY_BYTES = 8 << 20
MAX_CHUNKING_BYTES = 1 << 20
"""What the form of a body in chunks may take beside its content."""
MAX_LINGER_BYTES = 2 << 20
"""So much of what still comes after a refusal is taken at most; then nothing is read any more."""
MAX_HEADER_LINE_BYTES = 8190
MAX_HEADERS = 64
MAX_PROMPT_CHARACTERS = 1 << 20
"""Text of all messages, or of the prompt."""
MAX_MESSAGES = 4096

MAX_CONNECTIONS = 1024
"""Beyond them the connection that has been idle longest makes room; where none is idle the newcomer is closed."""
FIRST_REQUEST_LIMIT_S = 10.0
"""A connection that has not sent a whole request head by then is closed."""
LINGER_S = 1.0
"""What still comes after a refusal is thrown away for so long, so that the refusal is read."""
BODY_LIMIT_S = 30.0
"""Time for a body to arrive."""
WRITE_LIMIT_S = 30.0
"""A reader that takes nothing for so long has left."""
IDLE_LIMIT_S = 75.0
"""An idle connection is kept so long between two requests."""
PROBE_IDLE_S = 30
PROBE_INTERVAL_S = 10
PROBE_COUNT = 3
"""TCP keep-alive: a half-open connection is noticed after a minute."""
KEEP_ALIVE_S = 10.0
"""A stream without news gets a comment this often."""

MAX_EVENTS_BEHIND = 16384
"""A reader of a generation that is behind by so many events has in effect left."""

MAX_FRAME_BYTES = 1 << 20
"""Of a client of /ws."""
MAX_GENERATIONS_A_CLIENT = 32
MAX_TASKS_A_CLIENT = 64
"""Generations and operations of one client of /ws that are under way."""

PREPARING_THREADS = 4
"""Templates and tokenizers run apart from operations, which may wait for a person."""
MAX_OPERATIONS_WAITING = 64
"""Each has a thread of its own."""
