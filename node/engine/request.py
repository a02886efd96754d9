"""A request to the engine, and the events for its client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

from node.errors import KekahydeError
from node.model.pool import Pooling
from node.model.sampling import Likelihood, SamplingParams
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.receipt import Receipt
from node.store.stored import StoredModel
from protocol.discreet import Discreet

if TYPE_CHECKING:
    from node.model.guide import Guide

log = logging.getLogger(__name__)


class GenerationRequest(Discreet, Struct, frozen=True):
    """A checked request with a prompt."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("prompt_ids",)
    id: str
    model: StoredModel
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    privacy: Privacy
    continues: bool
    """True if the text continues the prompt; False for the answer in a chat."""
    lend: Lend | None = None
    """What is lent if something is; None: as this node's sessions are formed."""
    siblings: str | None = None
    """Requests with one name here are several answers to one prompt, which is computed once."""
    guide: Guide | None = None
    """The grammar that the answer follows."""
    words_shown: tuple[str, ...] = ()
    """Words of special tokens that are part of the text, because the client reads them."""
    pooling: Pooling | None = None
    """The request is for a vector of the prompt, not for an answer."""
    conversation: str | None = None
    """The client and its conversation, whose next turn need not send its beginning again. None: the cache is never
    reused in a mode that shows rows to others."""
    speculate: int | None = None
    """Rows of a pass with guessed tokens, 2 to 8; 0: none are guessed; None: where that is predicted to pay."""
    draft: StoredModel | None = None
    """The model that guesses tokens; None: they are guessed from the text itself."""
    pad_output: int = 0
    """The passes behind the prompt that peers see are filled up to a multiple of this; 0: not at all."""


class Queued(Struct, frozen=True):
    """It waits; `position` requests are before it."""

    position: int


class Started(Struct, frozen=True):
    """Its first pass is next."""

    mode: str
    model: str
    plan: str
    """One sentence: why this mode."""
    prompt_tokens: int


class Prefilled(Struct, frozen=True):
    """`done` of `total` rows of its prompt are computed."""

    done: int
    total: int


class Token(Discreet, Struct, frozen=True):
    """One more token, with the text that it made certain."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("text", "likelihood")
    index: int
    id: int
    text: str
    likelihood: Likelihood | None = None
    """Only if it was asked for."""


class Embedded(Discreet, Struct, frozen=True):
    """The vector of a prompt, of length 1."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("vector",)
    vector: tuple[float, ...]


class Note(Struct, frozen=True):
    """Something that the user should know now."""

    text: str


class Completed(Struct, frozen=True):
    """The last event of a successful request."""

    receipt: Receipt


class Failed(Struct, frozen=True):
    """The last event of a failed request."""

    message: str
    code: str

    @classmethod
    def of(cls, what: str, exc: Exception) -> Failed:
        """The event for the client. Unexpected errors are logged. Call this inside the exception handler."""
        if isinstance(exc, KekahydeError):
            return cls(str(exc), type(exc).__name__)
        log.exception("%s failed", what)
        return cls(f"{what} failed ({type(exc).__name__}): see the node's log", "internal")


Event = Queued | Started | Prefilled | Token | Embedded | Note | Completed | Failed
Listener = Callable[[Event], None]
"""Called from the engine's threads, in order; it must not block."""
