"""An answer as the agent gives it."""

import msgspec

from ..shared.answer import Probabilities
from ..shared.came import Came
from ..shared.plan import Plan
from ..shared.side import Tensors


class Answer(msgspec.Struct, frozen=True):
    """An answer, who gave it, and where the time went.

    `provisional`: the deadline came before the cloud's answer. `final`: it is the one that
    followed. `fallback`: why the device answered although another plan had been taken, or would
    have been with a cloud in reach, or, where a final answer is asked for, with more time; else
    empty. `outputs` are the model's further ones, `missing` those that were wanted and that the
    device cannot make. `came`: of a frame in layers, how much of it the cloud had.
    """

    probabilities: Probabilities
    plan: Plan
    provisional: bool
    fallback: str
    sent_bytes: int
    steps_ms: dict[str, float]
    total_ms: float
    budget_ms: float
    outputs: Tensors = {}
    missing: tuple[str, ...] = ()
    final: bool = False
    came: Came | None = None

    @property
    def outstanding(self) -> bool:
        """Whether a better answer may still come: the device stood in for the cloud."""
        return bool(self.fallback) and not self.final

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())

    @property
    def within_budget(self) -> bool:
        return self.total_ms <= self.budget_ms
