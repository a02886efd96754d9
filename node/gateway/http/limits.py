"""All limits of the gateway. SPEC.md section «Gateway» has the table."""

from __future__ import annotations

DEFAULT_PORT = 11435
"""Used if it is free and the data directory is the default one; else any free port."""

MAX_BODY_BYTES = 8 << 20
MAX_CHUNKING_BYTES = 1 << 20
"""Most overhead that a chunked body may have beside its content."""
MAX_LINGER_BYTES = 2 << 20
"""Most bytes that are read after a refusal; then nothing more is read."""
MAX_JSON_DEPTH = 128
"""Levels of objects and lists in a body or a frame."""
MAX_HEADER_LINE_BYTES = 8190
MAX_HEADERS = 64
MAX_PROMPT_CHARACTERS = 1 << 20
"""Most characters of all messages together, or of the prompt."""
MAX_MESSAGES = 4096

MAX_CONNECTIONS = 1024
"""Beyond this the connection that has been idle longest is closed; if none is idle, the new one is closed."""
FIRST_REQUEST_LIMIT_S = 10.0
"""A connection that has not sent a complete request head within this time is closed."""
LINGER_S = 1.0
"""For this long, data that still comes after a refusal is read and dropped, so that the client reads the refusal."""
BODY_LIMIT_S = 30.0
"""A body must arrive within this time."""
WRITE_LIMIT_S = 30.0
"""A reader that takes nothing for this long counts as gone."""
IDLE_LIMIT_S = 75.0
"""How long an idle connection is kept between two requests."""
PROBE_IDLE_S = 30
PROBE_INTERVAL_S = 10
PROBE_COUNT = 3
"""TCP keep-alive: a half-open connection is detected after a minute."""
KEEP_ALIVE_S = 10.0
"""How often a stream without events gets a comment."""

MAX_EVENTS_BEHIND = 16384
"""A reader that is so many events behind in a generation counts as gone."""

MAX_FRAME_BYTES = 1 << 20
"""Most bytes of a frame from a client of /ws."""
MAX_GENERATIONS_A_CLIENT = 32
MAX_TASKS_A_CLIENT = 64
"""Most running generations and operations of one client of /ws."""

PREPARING_THREADS = 4
"""Templates and tokenizers have their own threads, because operations may wait for a person."""
MAX_OPERATIONS_WAITING = 64
"""Each operation has its own thread."""
