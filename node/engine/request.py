"""What is asked of the engine, and what its asker is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ClassVar

from msgspec import Struct

from node.errors import KekahydeError
from node.model.sampling import SamplingParams
from node.planning.placement import Lend
from node.privacy import Privacy
from node.session.receipt import Receipt
from node.store.stored import StoredModel
from protocol.discreet import Discreet

log = logging.getLogger(__name__)


class GenerationRequest(Discreet, Struct, frozen=True):
    """A prompt that was read and found good."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("prompt_ids",)
    id: str
    model: StoredModel
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    privacy: Privacy
    continues: bool
    """The text goes on from the prompt; False for the answer in a chat."""
    lend: Lend | None = None
    """What is lent where something is; None: as this node's sessions are formed."""
    conversation: str | None = None
    """Who asks, and in which conversation: its next turn need not send its beginning again. None: never reused in a
    mode that shows rows to others."""


class Queued(Struct, frozen=True):
    """It waits; so many are before it."""

    position: int


class Started(Struct, frozen=True):
    """Its first pass is next."""

    mode: str
    model: str
    plan: str
    """One sentence: why this mode."""
    prompt_tokens: int


class Prefilled(Struct, frozen=True):
    """So many rows of its prompt are computed."""

    done: int
    total: int


class Token(Discreet, Struct, frozen=True):
    """One more token, with the text that became certain by it."""

    HIDDEN: ClassVar[tuple[str, ...]] = ("text",)
    index: int
    id: int
    text: str


class Note(Struct, frozen=True):
    """Something that a person should know now."""

    text: str


class Completed(Struct, frozen=True):
    """The last event of a good one."""

    receipt: Receipt


class Failed(Struct, frozen=True):
    """The last event of a bad one."""

    message: str
    code: str

    @classmethod
    def of(cls, what: str, exc: Exception) -> Failed:
        """What whoever asked is told; what nobody foresaw is in the log. Called where the exception is handled."""
        if isinstance(exc, KekahydeError):
            return cls(str(exc), type(exc).__name__)
        log.exception("%s failed", what)
        return cls(f"{what} failed ({type(exc).__name__}): see the node's log", "internal")


Event = Queued | Started | Prefilled | Token | Note | Completed | Failed
Listener = Callable[[Event], None]
"""Called from the engine's threads, in order; must not block."""
