"""That a threshold keeps its promise is shown by drawing worlds whose truth is known."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.shared.binomial import at_most
from hybridge.shared.calibration import Calibration
from hybridge.shared.cascade import DELTA, Level, Refusal, Threshold, certify, threshold
from hybridge.shared.errors import ConfigError

Floats = npt.NDArray[np.float64]
PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=120)
LEVELS = st.builds(Level, st.floats(0.01, 0.5), st.floats(0.01, 0.5))


class World:
    """A distribution of (confidence, differs): how often answers differ at each confidence.

    `step` above 0 rounds confidences up to its multiples, so that many are equal.
    """

    def __init__(self, differs: Callable[[Floats], Floats], *, step: float = 0.0) -> None:
        self._differs = differs
        self._step = step
        self._grid = self._shown((np.arange(200_000) + 0.5) / 200_000)
        self._rates = differs((np.arange(200_000) + 0.5) / 200_000)

    def _shown(self, confidences: Floats) -> Floats:
        if not self._step:
            return confidences
        shown: Floats = np.ceil(confidences / self._step) * self._step
        return shown

    def draw(self, pictures: int, random: np.random.Generator) -> Calibration:
        confidences = random.uniform(size=pictures)
        agreed = random.uniform(size=pictures) >= self._differs(confidences)
        shown = np.minimum(self._shown(confidences), 1.0)
        return Calibration.of(zip(shown.tolist(), agreed.tolist(), strict=True))

    def risk(self, confidence: float) -> float:
        """How many of all answers at least this sure differ."""
        return float(self._rates[self._grid >= confidence - 1e-9].mean())


WORLDS = {
    "steep": World(lambda c: 0.5 * (1 - c) ** 2),
    "steep, ten confidences in all": World(lambda c: 0.5 * (1 - c) ** 2, step=0.1),
    "one rate, a little above alpha": World(lambda c: 0.055 + 0 * c),
    "worst where most confident": World(lambda c: 0.2 * c**8),
    "up and down around alpha": World(lambda c: 0.05 + 0.05 * np.sin(25 * c)),
    "up and down, ten confidences in all": World(lambda c: 0.05 + 0.05 * np.sin(25 * c), step=0.1),
    "right at alpha from the middle on": World(lambda c: np.where(c > 0.5, 0.0505, 0.4)),
}
RUNS = 500


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("pictures", [150, 600])
def test_at_most_delta_of_all_thresholds_break_the_promise(name: str, pictures: int) -> None:
    world, level = WORLDS[name], Level(0.05, 0.1)
    random = np.random.default_rng(pictures)
    broken = 0
    for _ in range(RUNS):
        found = certify(world.draw(pictures, random), level)
        broken += isinstance(found, Threshold) and world.risk(found.confidence) > level.alpha
    # If each broke with probability delta, more than this would happen once in a million times.
    allowed = next(k for k in range(RUNS) if at_most(k, RUNS, level.delta) > 1 - 1e-6)
    assert broken <= allowed


def test_the_promise_is_not_kept_by_promising_nothing() -> None:
    random = np.random.default_rng(1)
    shares = [
        found.share_local if isinstance(found, Threshold) else 0.0
        for found in (certify(WORLDS["steep"].draw(600, random), Level(0.05)) for _ in range(50))
    ]
    # Of the true curve, risk 0.05 is reached where 55 % stay: 0.5 * (1 - c)^2 / 3 with share 1 - c.
    assert np.mean(shares) > 0.25


@settings(deadline=None)
@given(PAIRS, LEVELS)
def test_what_is_said_of_a_threshold_is_so(pairs: list[tuple[float, bool]], level: Level) -> None:
    calibration = Calibration.of(pairs)
    found = certify(calibration, level)
    if isinstance(found, Refusal):
        assert found.needed is None or found.needed > len(pairs)
        assert found.fewest == level.fewest
        return
    behind = [agreed for confidence, agreed in pairs if found.lets_stand(confidence)]
    assert (found.local, found.differed) == (len(behind), behind.count(False))
    assert found.share_local == len(behind) / len(pairs)
    assert found.upper <= level.alpha + 1e-9
    assert found.local >= level.fewest


@settings(deadline=None)
@given(PAIRS, st.floats(0.01, 0.3), st.floats(0.01, 0.3))
def test_who_allows_more_keeps_more_local(
    pairs: list[tuple[float, bool]], one: float, other: float
) -> None:
    # With one start: a stricter level may start later, and later than a bad step.
    calibration = Calibration.of(pairs)
    strict, loose = Level(min(one, other)), Level(max(one, other))
    if 4 * strict.fewest > len(pairs) or 4 * loose.fewest > len(pairs):
        return
    found, more = certify(calibration, strict), certify(calibration, loose)
    if isinstance(found, Threshold):
        assert isinstance(more, Threshold)
        assert more.confidence <= found.confidence


@settings(deadline=None)
@given(PAIRS, LEVELS, st.randoms(use_true_random=False))
def test_the_start_does_not_depend_on_who_agreed(
    pairs: list[tuple[float, bool]], level: Level, random: "np.random.Generator"
) -> None:
    # All that agree: whatever can be shown is shown, from the least confident on.
    agreeing = certify(Calibration.of([(c, True) for c, _ in pairs]), level)
    assert isinstance(agreeing, Threshold) == (len(pairs) >= level.fewest)


def test_equal_confidences_are_one_step() -> None:
    # 100 answers are 0.9 sure, and ten of them differ: none of them can be let stand alone.
    calibration = Calibration(agreed=(0.9,) * 90 + (0.95,) * 100, differed=(0.9,) * 10)
    found = threshold(calibration, alpha=0.05)
    assert (found.confidence, found.local, found.differed) == (0.95, 100, 0)


def test_a_step_that_fails_ends_the_search() -> None:
    # After 200 that agree, 20 differ; the next 2,000 would make up for it, but are never reached.
    high, low = (0.9,) * 200, (0.1,) * 5000
    found = threshold(Calibration(agreed=low + high, differed=(0.5,) * 20), alpha=0.05)
    assert found.confidence == 0.1, "the start of 5,220 lies beyond"
    found = threshold(Calibration(agreed=(0.1,) * 500 + high, differed=(0.5,) * 20), alpha=0.05)
    assert found.confidence == 0.9


@pytest.mark.parametrize(
    ("agreed", "differed", "alpha", "words"),
    [
        (100, 0, 0.01, "100 evaluation pictures do not show at least 0.99 agreement with "
                       "confidence 0.95: about 299 would, .* \\(299 if they always did\\)"),
        (295, 5, 0.02, "300 evaluation pictures do not .* about [0-9,]+ would, .* \\(149 if"),
        (90, 10, 0.05, "even the most confident quarter differs too often \\(59 would"),
    ],
)  # fmt: skip
def test_a_level_that_is_not_supported(
    agreed: int, differed: int, alpha: float, words: str
) -> None:
    calibration = Calibration(agreed=(0.5,) * agreed, differed=(0.5,) * differed)
    with pytest.raises(ConfigError, match=words):
        threshold(calibration, alpha=alpha)


def test_as_many_pictures_as_were_asked_for_are_enough() -> None:
    calibration = Calibration(agreed=(0.5,) * 295, differed=(0.5,) * 5)
    found = certify(calibration, Level(0.03))
    assert isinstance(found, Refusal)
    assert found.needed is not None
    more = found.needed / 300
    larger = Calibration(
        agreed=(0.5,) * (found.needed - round(5 * more)), differed=(0.5,) * round(5 * more)
    )
    assert isinstance(certify(larger, Level(0.03)), Threshold)


def test_a_bundle_without_a_record() -> None:
    with pytest.raises(ConfigError, match="build it again"):
        threshold(None, alpha=0.05)


@pytest.mark.parametrize(("alpha", "delta"), [(0, 0.05), (1, 0.05), (0.05, 0), (0.05, 1.5)])
def test_what_is_no_level(alpha: float, delta: float) -> None:
    with pytest.raises(ConfigError, match="has to lie between 0 and 1"):
        Level(alpha, delta)


def test_the_usual_delta() -> None:
    assert Level(0.01).delta == DELTA == 0.05
