"""Errors of the process, sorted by who must act next. The CLI maps them to exit codes in one place."""

from __future__ import annotations

from protocol.errors import (
    AddressError,
    KekahydeError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
)

__all__ = [
    "AddressError",
    "ConfigError",
    "CorruptModelError",
    "InterfaceError",
    "KekahydeError",
    "LocalProtocolError",
    "ModelError",
    "ModelNotFoundError",
    "NodeFailedError",
    "NodeNotRunningError",
    "OperationError",
    "PeerRefusedError",
    "PromptError",
    "PromptTooLongError",
    "ProtocolError",
    "RemoteProtocolError",
    "TransportError",
    "UnfinishedError",
    "UnitUnavailableError",
    "UnsupportedModelError",
]


class ConfigError(KekahydeError):
    """A setting, a data directory or an option cannot be used; the text names it and says what to do."""


class InterfaceError(KekahydeError):
    """The interface could not start: its node did not start, or its port is taken; the text says why."""


class ModelError(KekahydeError):
    """A model cannot be used."""


class ModelNotFoundError(ModelError):
    """There is no model with this name, id or path."""


class UnsupportedModelError(ModelError):
    """Kekahyde does not support this kind of checkpoint; nothing was loaded."""


class CorruptModelError(ModelError):
    """A file on disk is damaged, for example does not have the hash in the manifest."""


class UnfinishedError(KekahydeError):
    """An answer is incomplete; the text says why. The text so far was given out."""


class UnitUnavailableError(ModelError):
    """Nobody computes a unit whose weights are not here, and nobody has the weights; the text names the layer."""


class PromptError(KekahydeError):
    """The model cannot use the prompt or its parameters; nothing was computed."""


class PromptTooLongError(PromptError):
    """The prompt does not fit the model's context."""


class TransportError(KekahydeError):
    """A network operation failed; the text says which peer and what happened."""


class PeerRefusedError(TransportError):
    """The peer answered and refused."""


class NodeFailedError(KekahydeError):
    """An essential part of this node has ended; the text says which."""


class NodeNotRunningError(KekahydeError):
    """No node runs on this data directory."""


class OperationError(KekahydeError):
    """A running node refused an operation; the text is the node's."""
