"""Every number that two nodes must agree on, and every bound that is checked before memory is taken.

Specification constants: SPEC.md section 10. Tunables of this implementation live with their users.
"""

from __future__ import annotations

from functools import lru_cache

PROTOCOL_VERSION = 1
"""`kek/1`. Versions a node speaks travel in its hello."""

MAGIC = b"KEK\x01"
"""First four bytes of every message: three of name, one of the envelope's version."""

MAX_CONTROL_FRAME_BYTES = 64 * 1024
MAX_DATA_HEADER_BYTES = 4 * 1024
MAX_DATA_BYTES = 8 * 1024 * 1024
"""Sum of the buffers of one data message, each way."""
MAX_BUFFERS = 16
MAX_DIMENSIONS = 4

TILE_OUTPUTS = 512
"""A unit's output rows are cut into fixed tiles of this many; a slice is whole tiles."""
ROW_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512)
"""On the wire, a pass or a chunk has one of these numbers of rows; shares of zero rows fill it up."""
CHUNK_LIMITS = (1, 8, 32, 128, 512)
"""Every unit limits the rows of its chunks to one of these."""
MAX_CHUNK_ROWS = ROW_BUCKETS[-1]
MAX_UNIT_INPUTS = 1 << 16
MAX_HIDDEN_SIZE = 1 << 16
MAX_LAYERS = 1 << 12
MAX_POSITIONS = 1 << 24
MAX_STEP_PARTS = 64
MAX_ONWARD = 15
"""Most devices that the rows of a step go on to, one after the other."""
MAX_COMPUTE_US = 1 << 62
MAX_UNIT_OUTPUTS = 1 << 20

HASH_BYTES = 32
SEED_BYTES = 32
SESSION_BYTES = 16
CACHE_BYTES = 16
"""Of the id of a span's cache."""
WAY_KEY_BYTES = 32
"""Of the key with which a client seals what its devices hand on (`protocol.spans.onward`)."""
NONCE_BYTES = 16
SWARM_KEY_BYTES = 32
PROOF_BYTES = 32
OPERATOR_BYTES = 16
MAX_HOST_CHARACTERS = 64
MAX_HOSTED_MODELS = 8
MAX_HOSTED_UNITS = 1024
MAX_ADDRESSES = 8
MAX_AGENT_CHARACTERS = 64
MAX_NAME_CHARACTERS = 32
"""Of a device's name."""
MAX_ERROR_CHARACTERS = 256

PIECE_BYTES = 1024 * 1024
"""A blob is fetched, verified and written in pieces of this many bytes; the last may be shorter."""
SLICE_BYTES = 256 * 1024
"""A piece travels in slices of this size: at 350 MB/s of CURVE, one slice delays other connections by less than 1
ms."""
MAX_BLOB_PIECES = 1 << 16
MAX_OPEN_PIECES = 32
"""Most pieces that are asked for and not yet answered on one connection."""

FREIVALDS_VECTORS = 3
"""k: a wrong result passes with probability at most (2/p)^3 < 2^-89 (SPEC.md section 8)."""


@lru_cache(maxsize=MAX_CHUNK_ROWS)
def row_bucket(num_rows: int) -> int:
    """Smallest bucket that holds `num_rows` (1 to 512)."""
    return next(bucket for bucket in ROW_BUCKETS if bucket >= num_rows)


@lru_cache(maxsize=256)
def max_rows_per_chunk(num_inputs: int, num_outputs: int) -> int:
    """Largest row limit that keeps both share and result within MAX_DATA_BYTES."""
    fitting = MAX_DATA_BYTES // (4 * max(num_inputs, num_outputs))
    return max((limit for limit in CHUNK_LIMITS if limit <= fitting), default=1)
