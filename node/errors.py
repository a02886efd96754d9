"""Failures of the process, sorted by whose move is next. The CLI maps them to exit codes in one place."""

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
    """A setting, a data directory or an option that cannot be used; names it and the next step."""


class InterfaceError(KekahydeError):
    """The interface could not begin: its node did not start, or its port is taken; says why."""


class ModelError(KekahydeError):
    """A model cannot be used."""


class ModelNotFoundError(ModelError):
    """No model under this name, id or path."""


class UnsupportedModelError(ModelError):
    """The checkpoint is of a kind that Kekahyde refuses; nothing was loaded."""


class CorruptModelError(ModelError):
    """Bytes on disk do not have the hash that the manifest names."""


class UnfinishedError(KekahydeError):
    """An answer ended before its end; says why, and what there is of it was given."""


class UnitUnavailableError(ModelError):
    """Nobody computes a unit whose weights are not here, and nobody gives the weights; names the layer."""


class PromptError(KekahydeError):
    """The prompt, or how it is to be answered, is nothing that the model can read or do; nothing was computed."""


class PromptTooLongError(PromptError):
    """The prompt does not fit the model's context."""


class TransportError(KekahydeError):
    """The network did not do what was asked; says which peer and what happened."""


class PeerRefusedError(TransportError):
    """The peer answered and said no."""


class NodeFailedError(KekahydeError):
    """A part of this node has ended that it cannot go on without; says which."""


class NodeNotRunningError(KekahydeError):
    """No node runs on this data directory."""


class OperationError(KekahydeError):
    """A running node refused what it was asked to do; says why in its words."""
