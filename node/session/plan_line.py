"""The predicted cost of an answer: one line for the user, and an object for receipt and gateway."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from node.planning.cost import Cost
from node.planning.placement import Placement
from node.session.plan import SessionPlan


class PlanLine(Struct, frozen=True):
    """The cost of an answer, predicted before it began."""

    mode: str
    lanes: int
    ttft_s: float
    tokens_per_s: float
    exchanges_per_token: int
    bytes_per_token: int
    """Sum of both directions."""
    here_ttft_s: float | None
    here_tokens_per_s: float | None
    """The prediction for this device alone; None if it cannot compute alone."""
    spans: int = 0
    """Runs of layers that the user's own devices compute."""
    lanes_mode: str = ""
    """The mode in which lanes compute the layers that these leave out; empty: they do not."""
    lend: str = "nothing"
    """The chosen placement, as `--lend` names it."""
    choices: list[dict[str, Any]] = field(default_factory=list)
    """Each possible placement: lend, ttft_s, token_s, exchanges_per_token, bytes_per_token."""

    @classmethod
    def of(cls, plan: SessionPlan, cost: Cost | None = None) -> PlanLine | None:
        """The line of a plan, with the cost of one request if it is known; None if nothing was predicted."""
        cost, here = cost or plan.cost, plan.cost_here
        if cost is None:
            return None
        return cls(
            mode=plan.mode.value,
            lanes=plan.num_lanes,
            ttft_s=round(cost.ttft_s, 6),
            tokens_per_s=round(1 / cost.token_s, 3),
            exchanges_per_token=cost.exchanges,
            bytes_per_token=cost.bytes_up + cost.bytes_down,
            here_ttft_s=None if here is None else round(here.ttft_s, 6),
            here_tokens_per_s=None if here is None else round(1 / here.token_s, 3),
            lend=plan.placement.name,
            spans=len(plan.spans),
            lanes_mode="" if plan.lanes_mode is None else plan.lanes_mode.value,
            choices=[_choice(placement, cost) for placement, cost in plan.choices],
        )

    def as_line(self) -> str:
        """One line for the user."""
        lanes = f" over {self.lanes} lane{'s' * (self.lanes > 1)}" if self.lanes else ""
        if self.spans:
            rest = f" and{lanes.removeprefix(' over')} in {self.lanes_mode}" if self.lanes_mode else ""
            lanes = f" over {self.spans} device{'s' * (self.spans > 1)}{rest}"
        line = f"plan: {self.mode}{lanes}, first token in {self.ttft_s:.2g} s, then {self.tokens_per_s:.3g} tokens/s"
        if (self.lanes or self.spans) and self.here_ttft_s is not None:
            line += f" (this device alone: {self.here_ttft_s:.2g} s, {self.here_tokens_per_s:.3g} tokens/s)"
        if len(self.choices) > 1:
            each = ", ".join(
                f"{choice['lend']} {choice['token_s']:.2g} s and {choice['bytes_per_token'] / 1e6:.2g} MB a token"
                for choice in self.choices
            )
            line += f"; lent: {self.lend}, the fastest of {each}"
        elif self.lanes:
            line += f"; lent: {self.lend}, {self.bytes_per_token / 1e6:.2g} MB a token"
        return line


def _choice(placement: Placement, cost: Cost) -> dict[str, Any]:
    return {
        "lend": placement.name,
        "ttft_s": round(cost.ttft_s, 6),
        "token_s": round(cost.token_s, 6),
        "exchanges_per_token": cost.exchanges,
        "bytes_per_token": cost.bytes_up + cost.bytes_down,
    }
