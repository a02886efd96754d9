"""Why a request for work is not served."""

from __future__ import annotations

from node.errors import KekahydeError
from protocol.message import ErrorCode


class RequestError(KekahydeError):
    """A request that cannot be served, with the code that goes back."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
