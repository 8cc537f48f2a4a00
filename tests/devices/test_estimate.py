import msgspec
import pytest

from hybridge.devices.boards import Kind, read_board, read_reference
from hybridge.devices.estimate import estimate, stage_kind
from hybridge.devices.profile import Origin, Profile, StageTime
from hybridge.shared.errors import ConfigError

from .test_probe import HERE

BOARD = read_board("raspberry-pi-4")
QUIET = StageTime(p50_ms=2.0, p95_ms=3.0, p999_ms=5.0, runs=200, cpu_ms=1.9)
STAGES = (
    "resize_light",
    "light",
    "resize_large",
    "head:c/int8",
    "head:c/float32",
    "encode:cloud:raw",
)
REFERENCE = Profile(
    device=HERE,
    bundle_sha256="ab" * 32,
    stages=dict.fromkeys((*STAGES, "tail:c", "whole"), QUIET),
    yardstick_ms=read_reference().yardstick_ms,
)


def test_every_stage_of_the_device_has_a_kind_and_the_clouds_have_none() -> None:
    kinds = [stage_kind(stage) for stage in STAGES]
    assert kinds == [Kind.RESIZE, Kind.INT8, Kind.RESIZE, Kind.INT8, Kind.FLOAT, Kind.ENCODE]
    assert stage_kind("whole") is stage_kind("tail:c") is None


def test_a_board_takes_its_factors_longer() -> None:
    guess = estimate(REFERENCE, BOARD)
    assert guess.origin is Origin.ESTIMATED
    assert set(guess.stages) == set(STAGES)
    assert guess.bundle_sha256 == REFERENCE.bundle_sha256
    assert guess.factors == {kind.value: round(BOARD.factor(kind), 2) for kind in Kind}
    assert "Raspberry Pi 4" in guess.device.processor
    assert guess.device.architecture == "aarch64"
    assert guess.device.fingerprint != HERE.fingerprint
    light = guess.stages["light"]
    assert light.p50_ms == pytest.approx(1.9 * BOARD.factor(Kind.INT8))
    assert light.p95_ms == pytest.approx(light.p50_ms * BOARD.unsure(Kind.INT8))
    assert light.p999_ms > light.p95_ms


def test_the_machine_it_was_measured_on_does_not_matter() -> None:
    """A machine half as quick, by yardstick and stages alike, gives the same estimate."""
    slow = msgspec.structs.replace(
        REFERENCE,
        stages={name: stage.scaled(2.0) for name, stage in REFERENCE.stages.items()},
        yardstick_ms={name: 2 * ms for name, ms in REFERENCE.yardstick_ms.items()},
    )
    quick, guess = estimate(REFERENCE, BOARD), estimate(slow, BOARD)
    for name in STAGES:
        assert guess.stages[name].p50_ms == pytest.approx(quick.stages[name].p50_ms)


def test_what_others_took_of_the_machine_does_not_matter() -> None:
    busy = {
        name: msgspec.structs.replace(stage, p50_ms=9.0, p95_ms=40.0, p999_ms=90.0)
        for name, stage in REFERENCE.stages.items()
    }
    guess = estimate(msgspec.structs.replace(REFERENCE, stages=busy), BOARD)
    assert guess.stages == estimate(REFERENCE, BOARD).stages


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"origin": Origin.ESTIMATED}, "from an estimate"),
        ({"threads": 2}, "this profile has 2; run `hybridge profile` with --threads 1"),
        ({"yardstick_ms": {}}, "of an earlier version"),
    ],
)
def test_what_nothing_can_be_estimated_from(change: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        estimate(msgspec.structs.replace(REFERENCE, **change), BOARD)
