"""A share that comes while nothing else waits is answered at once, from its frames, without becoming a job.

That is how nearly all requests of a client come that generates token by token. Whatever is not such a share, or does
not fit, is left to `reception`, which says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable

from node.serving.inbox import Unopened
from node.serving.native_shares import NativeShares
from node.serving.worker import ALONE_PART_S, SHORT_S, LinearWorker
from protocol.codec import encode_message
from protocol.envelope import Frame
from protocol.identity import PeerId
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.linear.quick import ShareHeader, quick_share

Send = Callable[[Unopened, ShareHeader, list[Frame]], None]


class AtOnce:
    """Used by the data plane's thread.

    Args:
        is_shared: whether others than this peer ask, too.
        send: sends the frames of an answer.
        shares: is told what C may answer from now on.
    """

    def __init__(
        self,
        worker: LinearWorker,
        is_shared: Callable[[PeerId], bool],
        send: Send,
        shares: NativeShares | None = None,
    ) -> None:
        self._worker, self._is_shared, self._send, self._shares = worker, is_shared, send, shares

    def answer(self, message: Unopened) -> float | None:
        """How long computing the answer was expected to take; None where it was no share that can be answered so."""
        if self._shares is not None:
            self._shares.is_asked = False
        quick = quick_share([frame.buffer for frame in message.frames], MAX_DATA_HEADER_BYTES)
        if quick is None:
            return None
        share, rows = quick
        most_s = SHORT_S if self._is_shared(message.peer_id) else ALONE_PART_S
        self._worker.part_s = ALONE_PART_S
        product = self._worker.product(share, rows, most_s)
        if product is None:
            return None
        result, expected_s = product
        self._send(message, share, encode_message(result, share.id))
        if self._shares is not None:
            self._shares.learn(share.rest)
        return expected_s
