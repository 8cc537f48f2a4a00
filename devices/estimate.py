"""What a bundle's stages would take on a board, from a profile measured elsewhere."""

from collections.abc import Iterable

import msgspec

from ..shared.errors import ConfigError
from .boards import Board, Kind, read_reference
from .models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT
from .probe import Device
from .profile import Origin, Profile, StageTime
from .yardstick import yardstick_of


def basis(profiles: Iterable[Profile]) -> Profile | None:
    """The profile to estimate boards from: of those that can tell, the quietest machine's."""
    able = [each for each in profiles if each.threads == 1 and each.yardstick_ms]
    return min(able, key=lambda each: each.conditions.others_busy, default=None)


def estimate(reference: Profile, board: Board) -> Profile:
    """The profile a board may have, one thread per run; ConfigError if the reference cannot tell.

    The median is the reference's CPU time, times the board's factor for that kind of work, times
    the yardstick of the machine for which the factors hold over that of the machine that was
    measured. Upper quantiles say how unsure the factor is, not how steady the board would be. The
    cloud's stages are no part of a board and left out.
    """
    if reference.origin is not Origin.MEASURED:
        raise ConfigError("an estimate cannot be made from an estimate")
    if reference.threads != 1:
        raise ConfigError(
            f"boards are estimated from runs on one thread, this profile has {reference.threads}; "
            "run `hybridge profile` with --threads 1"
        )
    factors = {kind: board.factor(kind) * _bridge(reference, kind) for kind in Kind}
    kinds = {stage: kind for stage in reference.stages if (kind := stage_kind(stage)) is not None}
    return Profile(
        device=_device(reference.device, board),
        bundle_sha256=reference.bundle_sha256,
        stages={
            stage: _scaled(reference.stages[stage], factors[kind], unsure=board.unsure(kind))
            for stage, kind in kinds.items()
        },
        memory_bytes=reference.memory_bytes,
        origin=Origin.ESTIMATED,
        factors={kind.value: round(factor, 2) for kind, factor in factors.items()},
    )


def stage_kind(stage: str) -> Kind | None:
    """The kind of work a stage of the device is; None for the cloud's."""
    if stage in (RESIZE_LIGHT, RESIZE_LARGE):
        return Kind.RESIZE
    if stage.startswith("encode:"):
        return Kind.ENCODE
    if stage == LIGHT or (stage.startswith("head:") and stage.endswith("/int8")):
        return Kind.INT8
    return Kind.FLOAT if stage.startswith("head:") else None


def _bridge(profile: Profile, kind: Kind) -> float:
    """The reference machine's speed in units of the machine that was measured."""
    yardstick = yardstick_of(kind)
    reference_ms = read_reference().yardstick_ms[yardstick]
    measured_ms = profile.yardstick_ms.get(yardstick, 0.0)
    if not measured_ms > 0:
        raise ConfigError(
            "this profile is of an earlier version and does not say how fast its machine is; "
            "run `hybridge profile` again"
        )
    return reference_ms / measured_ms


def _scaled(stage: StageTime, factor: float, *, unsure: float) -> StageTime:
    p50_ms = factor * (stage.cpu_ms or stage.p50_ms)
    return StageTime(
        p50_ms=p50_ms, p95_ms=p50_ms * unsure, p999_ms=p50_ms * unsure**2, runs=stage.runs
    )


def _device(here: Device, board: Board) -> Device:
    return msgspec.structs.replace(
        here,
        processor=f"{board.title} ({board.processor})",
        architecture=board.architecture,
        cores=board.cores,
        memory_bytes=board.memory_bytes,
        features=board.features,
        system="",
        quota_cores=0.0,
    )
