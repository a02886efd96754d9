"""`verify_result`, the only way for a peer's numbers into an answer, and the secrets that it checks with."""

from __future__ import annotations

import secrets

from node.execution.peer import Request
from node.kernels.interface import Kernels
from node.model.unit import Unit, UnitRef
from protocol.linear.messages import LinearResult, TrustedResult
from protocol.linear.verification import UnitCheck, passes_gate


class UnitChecks:
    """Freivalds' U and V of every unit of one model, drawn when the model is loaded."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._checks: dict[UnitRef, UnitCheck] = {}

    def of(self, unit: Unit) -> UnitCheck:
        """The check of a unit; streams over its weights the first time."""
        check = self._checks.get(unit.ref)
        return self.renew(unit) if check is None else check

    def known(self, ref: UnitRef) -> UnitCheck:
        """The check of a unit that was seen before."""
        return self._checks[ref]

    def renew(self, unit: Unit) -> UnitCheck:
        """Draw U anew and project the weights again, for a check whose own memory is in doubt."""
        check = UnitCheck.of(unit.weights, self._kernels, secrets.token_bytes)
        self._checks[unit.ref] = check
        return check


def verify_result(request: Request, result: LinearResult | TrustedResult, check: UnitCheck, kernels: Kernels) -> bool:
    """Whether a result is the exact product that was asked for: binding, SHA-256, range, Freivalds (k = 3)."""
    return passes_gate(request.binding, request.inputs, result, check, kernels, secrets.token_bytes)
