"""What a caller wants beside an answer in time: what is to be best, and what must not happen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..shared import oip as messages
from ..shared.errors import ConfigError, RequestError
from ..shared.objective import Objective
from ..shared.plan import Plan, PlanKind

_PARAMETERS = frozenset(
    {
        messages.OBJECTIVE,
        messages.MIN_AGREEMENT,
        messages.STAY_LOCAL,
        messages.ONLY_CUTS,
        messages.BYTES_PER_HOUR,
        messages.MAX_SIMILARITY,
    }
)
DEFAULT_MIN_AGREEMENT = 0.98
"""What an objective other than accuracy keeps to if it is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one request asks of its plan.

    `min_agreement`: an answer that agrees with the large model at least so often is good enough.
    `stay`: nothing leaves the device. `only_cuts`: no pictures leave it. `max_similarity`: nothing
    leaves it from which pictures were rebuilt that are more alike, in SSIM. `bytes_per_hour`: at
    most so much leaves it within an hour, all requests together. `outputs`: outputs are wanted that
    only a cloud makes.
    """

    objective: Objective = Objective.ACCURACY
    min_agreement: float | None = None
    stay: bool = False
    only_cuts: bool = False
    max_similarity: float = 1.0
    bytes_per_hour: float = math.inf
    outputs: bool = False

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0.0 < self.min_agreement < 1.0:
            raise ConfigError(
                f"min_agreement is a share between 0 and 1, such as 0.98, "
                f"not {self.min_agreement:g}"
            )
        if not 0.0 <= self.max_similarity <= 1.0:
            raise ConfigError(
                f"max_similarity is between 0 and 1, such as 0.3, not {self.max_similarity:g}"
            )
        if not self.bytes_per_hour >= 0:
            raise ConfigError(f"bytes_per_hour must not be negative, not {self.bytes_per_hour:g}")

    @property
    def enough(self) -> float | None:
        """The agreement that is good enough; None if only the best will do."""
        if self.min_agreement is None and self.objective is not Objective.ACCURACY:
            return DEFAULT_MIN_AGREEMENT
        return self.min_agreement

    def forbids(
        self,
        plan: Plan,
        size_bytes: int,
        *,
        spent_bytes: float = 0.0,
        similarity: float | None = None,
    ) -> str:
        """Why a plan must not be taken; empty if it may.

        `similarity` is how alike pictures were that somebody rebuilt from what a split sends; None
        if nobody tried, which counts as if the picture itself were sent.
        """
        if plan.kind is PlanKind.LOCAL:
            return ""
        if self.stay:
            return "must not leave the device"
        if self.only_cuts and plan.kind is PlanKind.CLOUD:
            return "only cuts may leave the device, no pictures"
        if self.max_similarity < 1.0 and (why := self._tells(plan, similarity)):
            return why
        if size_bytes + spent_bytes > self.bytes_per_hour:
            return f"more than what is left of {self.bytes_per_hour:,.0f} bytes an hour"
        return ""

    def _tells(self, plan: Plan, similarity: float | None) -> str:
        """Why a plan gives away more of the picture than is allowed."""
        allowed = f"{self.max_similarity:.2f} is allowed"
        if plan.kind is PlanKind.CLOUD:
            return f"the picture itself is alike to 1.00, {allowed}"
        if similarity is None:
            return f"nobody has measured what it gives away, {allowed}"
        if similarity > self.max_similarity:
            return f"pictures rebuilt from it were alike to {similarity:.2f}, {allowed}"
        return ""


ANYTHING = Demand()


def read_demand(parameters: Mapping[str, messages.Value], default: Demand) -> Demand:
    """What a request's parameters ask for, over what holds for all; RequestError for nonsense.

    A request can forbid more than the agent's own demand does, never less.
    """
    if not parameters.keys() & _PARAMETERS:
        return default
    least = messages.number(parameters, messages.MIN_AGREEMENT)
    allowance = messages.number(parameters, messages.BYTES_PER_HOUR)
    alike = messages.number(parameters, messages.MAX_SIMILARITY)
    try:
        return replace(
            default,
            objective=_objective(parameters.get(messages.OBJECTIVE, default.objective)),
            min_agreement=default.min_agreement if least is None else least,
            stay=messages.flag(parameters, messages.STAY_LOCAL) or default.stay,
            only_cuts=messages.flag(parameters, messages.ONLY_CUTS) or default.only_cuts,
            max_similarity=default.max_similarity
            if alike is None or default.max_similarity < alike <= 1.0
            else alike,
            bytes_per_hour=default.bytes_per_hour
            if allowance is None or allowance > default.bytes_per_hour
            else allowance,
        )
    except ConfigError as error:
        raise RequestError(str(error)) from error


def _objective(name: messages.Value) -> Objective:
    if name not in list(Objective):
        known = ", ".join(Objective)
        raise RequestError(f"parameter {messages.OBJECTIVE} must be one of {known}, not {name!r}")
    return Objective(str(name))
