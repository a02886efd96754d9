"""Verifies every result of a peer (`verify_result`), keeps the secrets for that, and merges two verified results."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from node.execution.peer import Request
from node.kernels.interface import Kernels
from node.model.unit import Unit, UnitRef
from protocol.linear.field import Elements, Sums
from protocol.linear.messages import WorkResult
from protocol.linear.verification import UnitCheck, passes_gate


class UnitChecks:
    """Freivalds' U and V of every unit of one model: drawn when the model is loaded, or stored when it was fetched.

    Args:
        kept: gives the stored check of a unit whose weights are not here; None for any other unit.
    """

    def __init__(self, kernels: Kernels, kept: Callable[[UnitRef], UnitCheck | None] = lambda ref: None) -> None:
        self._kernels = kernels
        self._kept = kept
        self._checks: dict[UnitRef, UnitCheck] = {}

    def of(self, unit: Unit) -> UnitCheck:
        """The check of a unit; the first call reads all of its weights."""
        check = self._checks.get(unit.ref)
        return self.renew(unit) if check is None else check

    @property
    def num_bytes(self) -> int:
        """Size of all checks that are in use."""
        return sum(check.vectors.nbytes + check.projections.nbytes for check in list(self._checks.values()))

    def known(self, ref: UnitRef) -> UnitCheck:
        """The check of a unit that was seen before."""
        return self._checks[ref]

    def renew(self, unit: Unit) -> UnitCheck:
        """Replace a check whose memory may be damaged: draw a new U and project the weights, or read it again."""
        check = self._kept(unit.ref)
        if check is None:
            check = UnitCheck.of(unit.weights, self._kernels, secrets.token_bytes)
        self._checks[unit.ref] = check
        return check


class ResultGate:
    """Verifies every result of a session before it is used.

    Args:
        recheck: called before a peer is blamed; raises CorruptModelError if our weights do not match the manifest.
    """

    def __init__(self, kernels: Kernels, checks: UnitChecks, recheck: Callable[[Unit], None]) -> None:
        self._kernels = kernels
        self.checks = checks
        self.recheck = recheck
        self._units: dict[UnitRef, Unit] = {}

    def expect(self, unit: Unit) -> None:
        """Prepare for results of this unit."""
        self._units[unit.ref] = unit

    def lets_in(self, request: Request, result: WorkResult) -> bool:
        """Whether a result counts. A refusal is confirmed with a fresh check on weights that were hashed again: our
        memory may be at fault."""
        if verify_result(request, result, self.checks.known(request.unit), self._kernels):
            return True
        unit = self._units[request.unit]
        self.recheck(unit)
        return verify_result(request, result, self.checks.renew(unit), self._kernels)


def verify_result(request: Request, result: WorkResult, check: UnitCheck, kernels: Kernels) -> bool:
    """Whether a result is the exact product that was asked for: binding, SHA-256, range, Freivalds (k = 3)."""
    return passes_gate(request.binding, request.inputs, result, check, kernels, secrets.token_bytes)


def merge_results(share_result: Elements, pad_products: Elements, kernels: Kernels) -> Sums:
    """`W (x - r) + W r = W x`: two `[T, N]` u32 -> `[T, N]` int32, centred in (-p/2, p/2).

    Exact because the scale of every row guarantees `|W x| < p / 2` (Cauchy-Schwarz).
    """
    return kernels.merge(share_result, pad_products)
