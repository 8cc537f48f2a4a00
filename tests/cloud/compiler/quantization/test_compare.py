import numpy as np
import pytest

from hybridge.cloud.compiler.quantization.compare import (
    Candidate,
    Quality,
    Scheme,
    best_of,
    held_out,
    is_better,
    settled,
    static_or_dynamic,
)
from hybridge.cloud.compiler.quantization.ranges import Ranges
from hybridge.devices.profile import Runs, StageTime, summarize
from hybridge.shared.manifest import Rate


def candidate(hits: int, snr_db: float, *, scheme: Scheme = Scheme.STATIC) -> Candidate:
    return Candidate(
        scheme=scheme,
        ranges=Ranges.MSE if scheme is Scheme.STATIC else None,
        model=b"model",
        quality=Quality(agreement=Rate.of(hits, 100), snr_db=snr_db),
    )


def dynamic(hits: int, snr_db: float) -> Candidate:
    return candidate(hits, snr_db, scheme=Scheme.DYNAMIC)


def times(*, static: float, dynamic: float) -> dict[str, StageTime]:
    return {
        Scheme.STATIC: summarize(Runs([static], [static])),
        Scheme.DYNAMIC: summarize(Runs([dynamic], [dynamic])),
    }


def test_quality_is_of_what_tells_classes_apart() -> None:
    wanted = np.float32([[1, 3, 2], [5, 4, 6]])
    assert Quality.of(wanted + 100, wanted).snr_db == 200
    half = Quality.of(np.float32([[1, 3, 2], [6, 4, 5]]), wanted)
    assert half.agreement.value == 0.5
    assert half.snr_db == pytest.approx(10 * np.log10(4 / 2))


def test_every_fourth_is_held_out() -> None:
    assert held_out(range(8)) == ([0, 1, 2, 4, 5, 6], [3, 7])
    assert held_out(range(3)) == ([0, 1, 2], [0, 1, 2])


def test_of_equal_agreement_the_least_noisy_is_best() -> None:
    quiet, loud, wrong = candidate(98, 25), candidate(99, 15), candidate(80, 60)
    assert best_of([loud, quiet, wrong]) is quiet


@pytest.mark.parametrize(
    ("static", "rival", "ms", "chosen"),
    [
        (candidate(99, 20), dynamic(99, 24), {"static": 1.0, "dynamic": 1.1}, Scheme.STATIC),
        (candidate(99, 20), dynamic(99, 32), {"static": 1.0, "dynamic": 1.1}, Scheme.DYNAMIC),
        (candidate(99, 20), dynamic(99, 32), {"static": 1.0, "dynamic": 1.4}, Scheme.STATIC),
        (candidate(99, 30), dynamic(99, 30), {"static": 1.4, "dynamic": 1.0}, Scheme.DYNAMIC),
        (candidate(80, 16), dynamic(99, 30), {"static": 1.0, "dynamic": 9.0}, Scheme.DYNAMIC),
        (candidate(99, 8), dynamic(99, 30), {"static": 1.0, "dynamic": 9.0}, Scheme.DYNAMIC),
        (candidate(99, 30), dynamic(80, 16), {"static": 9.0, "dynamic": 1.0}, Scheme.STATIC),
    ],
    ids=["alike", "cleaner", "faster", "dynamic faster", "wrong", "noisy", "dynamic wrong"],
)
def test_accuracy_comes_before_time_and_time_before_noise(
    static: Candidate, rival: Candidate, ms: dict[str, float], chosen: Scheme
) -> None:
    assert static_or_dynamic(static, rival, times(**ms)).scheme is chosen


@pytest.mark.parametrize(
    ("static", "ms", "wasted", "found"),
    [
        (candidate(100, 20), {"static": 2.0, "dynamic": 5.0}, 1.0, True),
        (candidate(99, 20), {"static": 2.0, "dynamic": 5.0}, 2.5, False),
        (candidate(99, 14), {"static": 2.0, "dynamic": 5.0}, 1.0, False),
        (candidate(90, 20), {"static": 2.0, "dynamic": 5.0}, 1.0, False),
    ],
    ids=["far ahead", "dynamic may be as quick", "noisy", "wrong"],
)
def test_static_wins_whatever_is_left_in_float_of_dynamic(
    static: Candidate, ms: dict[str, float], wasted: float, found: bool
) -> None:
    assert settled(static, times(**ms), wasted_ms=wasted) is found


def test_a_record_says_how_it_was_made() -> None:
    record = candidate(90, 21.26).record(part="light", chosen=True)
    assert (record.method, record.bytes, record.snr_db) == ("static/mse", 5, 21.3)
    assert dynamic(90, 20).record(part="light", chosen=False).method == "dynamic"


@pytest.mark.parametrize(
    ("first", "second", "ms", "wins"),
    [
        (candidate(99, 20), dynamic(99, 20), (1.4, 1.0), True),
        (candidate(99, 20), dynamic(99, 20), (1.2, 1.0), False),
        (candidate(80, 16), dynamic(99, 30), (1.0, 9.0), True),
        (candidate(99, 30), dynamic(80, 16), (9.0, 1.0), False),
        (candidate(99, 20), dynamic(99, 20), (0.02, 0.01), False),
    ],
    ids=["sooner", "hardly sooner", "right", "wrong", "next to nothing"],
)
def test_a_second_runtime_must_be_worth_it(
    first: Candidate, second: Candidate, ms: tuple[float, float], *, wins: bool
) -> None:
    better = is_better(second.quality, ms[1], than=first.quality, than_ms=ms[0])
    assert better is wins
