"""How sure the light model has to be for its answer to stand, with a guarantee. Pure.

Learn then Test (Angelopoulos et al., arXiv 2110.01052) for selective classification: going down
from the most confident evaluation pictures, each confidence is a hypothesis "of the answers at
least this sure, more than alpha differ from the large model's". Its exact binomial p-value is
P(X <= differed | samples, alpha). Hypotheses are tested in this order, each at the full level
delta, until one is not rejected (fixed-sequence testing); the last rejected one is the threshold.
Where pictures to come are exchangeable with the evaluation pictures, more than alpha differ behind
the threshold with probability at most delta over the draw of the evaluation pictures.

The first hypothesis tested is that of the most confident quarter, or of as many pictures as have to
agree without exception, if that is more: counts decide where to start, never who agreed.
docs/guarantee.md says why that is valid, and what all this does not cover.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .binomial import at_most, fewest_samples, upper_bound
from .calibration import Calibration
from .errors import ConfigError

DELTA = 0.05
_START_SHARE = 4
_MOST_SAMPLES = 10**7
_GROWTH = 1.05


@dataclass(frozen=True, slots=True)
class Level:
    """At most a share `alpha` may differ, with confidence 1 - `delta`."""

    alpha: float
    delta: float = DELTA

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("delta", self.delta)):
            if not 0 < value < 1:
                raise ConfigError(f"{name} {value:g}: it has to lie between 0 and 1")

    @property
    def fewest(self) -> int:
        """Pictures that show it if the large model agrees on every single one."""
        return fewest_samples(self.alpha, self.delta)

    def __str__(self) -> str:
        return f"at least {1 - self.alpha:.4g} agreement with confidence {1 - self.delta:.4g}"


@dataclass(frozen=True, slots=True)
class Threshold:
    """Answers at least this confident may stand.

    Of `samples` evaluation pictures `local` were that confident, and `differed` of these had
    another answer than the large model's; `upper` is the Clopper-Pearson bound of that rate, at
    confidence 1 - delta, never above alpha.
    """

    level: Level
    confidence: float
    samples: int
    local: int
    differed: int

    @property
    def share_local(self) -> float:
        return self.local / self.samples

    @property
    def upper(self) -> float:
        return upper_bound(self.differed, self.local, delta=self.level.delta)

    def lets_stand(self, confidence: float) -> bool:
        return confidence >= self.confidence


@dataclass(frozen=True, slots=True)
class Refusal:
    """A level that these evaluation pictures cannot support.

    `fewest` have to be there even if all agree. `needed` is an estimate from how often they agreed
    here; None if even the most confident differ too often here for any number of pictures.
    """

    level: Level
    samples: int
    fewest: int
    needed: int | None

    def __str__(self) -> str:
        there = f"{self.samples:,} evaluation pictures do not show {self.level}"
        if self.needed is None:
            return (
                f"{there}: even the most confident quarter differs too often ({self.fewest:,} "
                "would, if all agreed); allow a larger alpha or take a better light model"
            )
        return (
            f"{there}: about {self.needed:,} would, if they agreed as often as these "
            f"({self.fewest:,} if they always did); add evaluation pictures and build again, or "
            "allow a larger alpha"
        )


def certify(calibration: Calibration, level: Level) -> Threshold | Refusal:
    """The lowest threshold that the pictures support, or how many it would take."""
    samples = len(calibration)
    start = max(level.fewest, math.ceil(samples / _START_SHARE))
    found: Threshold | None = None
    shown = -1  # the most that may differ among as many as were tested last; it only grows
    for confidence, local, differed in _steps(calibration):
        if local < start:
            continue
        if differed > shown:
            if at_most(differed, local, level.alpha) > level.delta:
                break
            shown = differed
        found = Threshold(level, confidence, samples, local, differed)
    return found or Refusal(level, samples, level.fewest, _needed(calibration, level))


def threshold(calibration: Calibration, *, alpha: float, delta: float = DELTA) -> Threshold:
    """As `certify`; ConfigError with the number of pictures needed where there is none.

    >>> sure = Calibration(agreed=(0.9,) * 400, differed=(0.2,) * 20)
    >>> threshold(sure, alpha=0.02).confidence
    0.9
    """
    found = certify(calibration, Level(alpha, delta))
    if isinstance(found, Refusal):
        raise ConfigError(str(found))
    return found


def _steps(calibration: Calibration) -> Iterator[tuple[float, int, int]]:
    """(confidence, how many are at least that sure, how many of them differed), downwards."""
    local = differed = 0
    for confidence, pictures, differing in calibration.groups:
        local += pictures
        differed += differing
        yield confidence, local, differed


def _needed(calibration: Calibration, level: Level) -> int | None:
    """How many pictures would pass the first test, at the rates seen here; None if no number."""
    samples = len(calibration)
    steps = list(_steps(calibration))
    wanted = float(max(samples + 1, level.fewest))
    while wanted <= _MOST_SAMPLES:
        share = max(level.fewest / wanted, 1 / _START_SHARE)
        _, local, differed = next(step for step in steps if step[1] >= share * samples)
        scale = wanted / samples
        if at_most(int(differed * scale), math.ceil(local * scale), level.alpha) <= level.delta:
            return math.ceil(wanted)
        wanted *= _GROWTH
    return None
