"""Which plan to take. Pure: values in, a decision out, in microseconds.

The rule: of the plans whose own answer is forecast to arrive in time, the one of highest agreement
with the large model. Agreements that differ by less than the standard error of the best are ties,
broken by the earlier finish, then by fewer bytes. Every time that enters is an upper quantile.

The net beneath it is the agent's: whatever is chosen here, the light model starts no later than
deadline - its p99.9, so that an answer is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..shared.manifest import Rate
from ..shared.plan import Plan, PlanKind


@dataclass(frozen=True, slots=True)
class Option:
    """One plan with what it is expected to give and to take; times are upper quantiles in ms."""

    plan: Plan
    agreement: Rate
    size_bytes: int
    device_ms: float
    network_ms: float
    cloud_ms: float

    @property
    def total_ms(self) -> float:
        return self.device_ms + self.network_ms + self.cloud_ms


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan taken, and whether it is forecast to fit (only `local` is ever taken without)."""

    option: Option
    fits: bool


def choose(options: Sequence[Option], *, left_ms: float) -> Decision:
    """The best option for the time left; `options` must hold the local plan."""
    fitting = [option for option in options if option.total_ms <= left_ms]
    if not fitting:
        return Decision(_local(options), fits=False)
    best = max(option.agreement.value for option in fitting)
    error = min(o.agreement.standard_error for o in fitting if o.agreement.value == best)
    ties = [option for option in fitting if option.agreement.value >= best - error]
    return Decision(min(ties, key=_tie_break), fits=True)


def _tie_break(option: Option) -> tuple[float, int, Plan]:
    return option.total_ms, option.size_bytes, option.plan


def _local(options: Sequence[Option]) -> Option:
    return next(option for option in options if option.plan.kind is PlanKind.LOCAL)


def explain(options: Sequence[Option], *, left_ms: float) -> list[tuple[Option, str]]:
    """Every option, best first, with the reason why it was or was not taken."""
    taken = choose(options, left_ms=left_ms).option
    order = sorted(options, key=lambda o: (o is not taken, -o.agreement.value, *_tie_break(o)))
    return [(option, _reason(option, taken, left_ms)) for option in order]


def _reason(option: Option, taken: Option, left_ms: float) -> str:
    if option is taken:
        if option.total_ms > left_ms:
            return "taken: nothing fits, and the device always has an answer"
        return "taken: the best agreement that fits"
    if option.device_ms == float("inf"):
        return "never measured on this device"
    if option.total_ms == float("inf"):
        return "the cloud is out of reach"
    if option.total_ms > left_ms:
        return f"too slow by {option.total_ms - left_ms:.0f} ms"
    gap = taken.agreement.value - option.agreement.value
    if gap > 0:
        return f"agrees {gap * 100:.1f} points less"
    if option.total_ms > taken.total_ms:
        return f"as good within the standard error, {option.total_ms - taken.total_ms:.0f} ms later"
    return "as good within the standard error, more bytes"
