"""Jobs of a few peers, and a worker that serves them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import settings
from made_parts import MODEL_ID, identity
from msgspec.structs import replace

from node.serving.work_queue import Job, Path, Route, WorkQueue
from protocol.identity import PeerId
from protocol.linear.messages import ChunkBinding, Linear, Role
from protocol.message import ErrorCode, ErrorReply

relaxed = settings(deadline=None, max_examples=100)
BINDING = ChunkBinding(bytes(16), 1, MODEL_ID, bytes(32), Role.PAD, 0, 1, 0, 1)
SEED = bytes(range(32))
PEERS: list[PeerId] = [identity(index).peer_id for index in range(4)]
ROUTES = [b"one", b"two", b"three"]
DONE = ErrorReply(ErrorCode.NOT_FOUND, "done")


def job(peer: int, request_id: int, num_bytes: int = 0, route: Route = b"one", **binding: Any) -> Job:
    bound = replace(BINDING, **binding)
    if not num_bytes:
        return Job(PEERS[peer], request_id, Linear(bound, seed=SEED), None, route)
    rows = np.zeros((1, num_bytes // 4), np.uint32)
    return Job(PEERS[peer], request_id, Linear(replace(bound, role=Role.SHARE), rows=rows), None, route)


def nobody_is_full(path: Path) -> bool:
    return False


def full(*paths: tuple[int, Route]) -> Callable[[Path], bool]:
    return {(PEERS[peer], route) for peer, route in paths}.__contains__


def served(queue: WorkQueue, seconds: float = 0.001) -> tuple[int, int] | None:
    """Compute the next job in one part, which takes so long."""
    following = queue.take(nobody_is_full)
    if following is None:
        return None
    queue.charge(following.peer_id, seconds)
    queue.finish(following)
    return PEERS.index(following.peer_id), following.request_id


def all_served(queue: WorkQueue) -> list[tuple[int, int]]:
    return list(iter(lambda: served(queue), None))  # type: ignore[arg-type]
