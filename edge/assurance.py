"""How far the light model's own answers can be relied on. Pure."""

import math

from ..shared.agreement import AgreementCurve
from ..shared.calibration import Calibration
from ..shared.cascade import DELTA, Level, Refusal, Threshold, certify, threshold

_STEPS = 10_000
"""Of agreements that thresholds are kept for."""


class Assurance:
    """What a confidence of the light model means.

    Without calibration it means nothing: the table's `average` holds for each answer, and none is
    ever enough.
    """

    def __init__(
        self, average: float, calibration: Calibration | None = None, *, delta: float = DELTA
    ) -> None:
        self.average = average
        self._calibration = calibration if calibration is not None and len(calibration) else None
        self._curve = AgreementCurve.of(self._calibration) if self._calibration else None
        self._errors = _errors(self._calibration, average)
        self._delta = delta
        self._thresholds: dict[int, Threshold | Refusal | None] = {}

    def agrees(self, confidence: float) -> float:
        """The probability that the large model would have said the same."""
        return self.average if self._curve is None else self._curve.at(confidence)

    def mended(self, share: float) -> float:
        """How many of all answers differ and are among so many, the least sure ones."""
        at = share * (len(self._errors) - 1)
        below = min(int(at), len(self._errors) - 2)
        lower, upper = self._errors[below : below + 2]
        return lower + (at - below) * (upper - lower)

    def enough(self, confidence: float, min_agreement: float | None) -> bool:
        """Whether answers as sure as this agree at least so often, with the guarantee."""
        if min_agreement is None:
            return False
        found = self._threshold(min_agreement)
        return found is not None and found.lets_stand(confidence)

    def least_confidence(self, min_agreement: float) -> float | None:
        """From how sure on answers are enough; None if the bundle's pictures do not show it."""
        found = self._threshold(min_agreement)
        return found.confidence if found is not None else None

    def share_enough(self, min_agreement: float | None) -> float:
        """How many of the light model's answers are that sure."""
        found = self._threshold(min_agreement) if min_agreement is not None else None
        return found.share_local if found is not None else 0.0

    def refusal(self, min_agreement: float) -> str:
        """Why no answer of the light model is ever enough for this; empty if some are."""
        self._threshold(min_agreement)
        found = self._thresholds[_step_of(min_agreement)]
        if isinstance(found, Threshold):
            return ""
        return str(found) if found is not None else "the bundle has no pictures to show it with"

    def require(self, min_agreement: float) -> Threshold:
        """The threshold; ConfigError, with how many pictures it would take, if there is none."""
        found = self._calibration
        return threshold(found, alpha=1.0 - min_agreement, delta=self._delta)

    def _threshold(self, min_agreement: float) -> Threshold | None:
        steps = _step_of(min_agreement)
        if steps not in self._thresholds:
            found: Threshold | Refusal | None = None
            if self._calibration is not None and steps < _STEPS:
                found = certify(self._calibration, Level(1.0 - steps / _STEPS, self._delta))
            self._thresholds[steps] = found
        known = self._thresholds[steps]
        return known if isinstance(known, Threshold) else None


def _errors(calibration: Calibration | None, average: float) -> list[float]:
    """Those among the least sure, from none of the pictures to all; `average` agree over all."""
    found = [0.0]
    for _, pictures, differed in reversed(calibration.groups if calibration else ()):
        found += [found[-1] + differed / pictures * (at + 1) for at in range(pictures)]
    return (
        [each / found[-1] * (1.0 - average) for each in found]
        if found[-1]
        else [0.0, 1.0 - average]
    )


def _step_of(min_agreement: float) -> int:
    """Steps upwards: callers cannot fill the memory, and get no less than they asked for."""
    return max(math.ceil(round(min_agreement * _STEPS, 6)), 1)
