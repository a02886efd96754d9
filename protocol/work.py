"""What all requests for work have in common: a worker computes something, and answers with a result or an error."""

from __future__ import annotations

from typing import ClassVar, Protocol

from protocol.message import Message


class Binding(Protocol):
    """What a result is bound to; each kind of work has its own."""

    @property
    def model_id(self) -> bytes: ...

    @property
    def num_rows(self) -> int: ...


class WorkRequest(Message, frozen=True):
    """A kind of work is a request, a result and a worker's handler."""

    FOR_PAIRED: ClassVar[bool] = False
    """Whether only devices of the same owner get an answer."""
    KEEPS_STATE: ClassVar[bool] = False
    """Whether it changes what later requests find; such requests are computed in the order in which they came."""

    binding: Binding

    @property
    def model_id(self) -> bytes:
        """The model that it is about."""
        return self.binding.model_id

    @property
    def num_rows(self) -> int:
        return self.binding.num_rows

    @property
    def num_bytes(self) -> int:
        """Memory that it takes while it waits."""
        raise NotImplementedError

    @property
    def result_bytes(self) -> int:
        """Memory that its result takes, at most."""
        raise NotImplementedError
