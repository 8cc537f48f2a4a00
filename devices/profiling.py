"""Measures a bundle on this machine, in fresh processes.

One process times every stage, away from the progress bar and whatever else the caller does. It
goes round the stages three times, so that the first and the last third of a stage's runs lie as far
apart as the measurement is long: that is what shows a clock that sinks. Further processes load one
model each, which is how the peak memory of each is told apart.
"""

import multiprocessing
import re
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, TypeVar, cast

from ..shared.bundle import Bundle
from ..shared.errors import ConfigError, HybridgeError
from ..shared.manifest import Precision
from ..shared.tensor import Array
from .conditions import Watch
from .litert import runtime
from .models import LIGHT, DeviceModels, stage_names, stage_work
from .probe import probe
from .profile import Profile, Runs, StageTime, summarize, time_runs, today
from .yardstick import measure_yardstick

T = TypeVar("T")

OnStage = Callable[[str, int, int], None]
"""Told (what, done, total) as the measurement goes on."""

WHOLE = "device"
"""The name under which a profile says how much memory all of a bundle's part here takes."""

_PASSES = 3
_WARM_UP = 5
_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the measuring processes are given."""

    bundle: Bundle
    picture: Array
    runs: int
    threads: int


def profile_bundle(
    bundle: Bundle,
    picture: Array,
    *,
    runs: int,
    threads: int = 1,
    on_stage: OnStage | None = None,
) -> Profile:
    """This machine's profile of a bundle: every stage of its table, timed on one picture."""
    tell: OnStage = on_stage or (lambda what, done, total: None)
    job = _Job(bundle=bundle, picture=picture, runs=runs, threads=threads)
    names = stage_names(bundle.manifest)
    models = (LIGHT, *(name for name in names if name.startswith("head:")), WHOLE)
    watch = Watch()
    stages: dict[str, StageTime] = _in_process(_time_stages, job, tell)
    conditions = watch.conditions()
    memory_bytes: dict[str, int] = {}
    for done, model in enumerate(models):
        tell(f"memory of {model}", done, len(models))
        memory_bytes[model] = _in_process(_grow, job, tell, model)
    return Profile(
        device=probe(),
        bundle_sha256=bundle.sha256,
        stages=stages,
        threads=threads,
        memory_bytes={model: grown for model, grown in memory_bytes.items() if grown},
        conditions=conditions,
        yardstick_ms=measure_yardstick(),
        measured_on=today(),
    )


@dataclass(frozen=True)
class _Result(Generic[T]):
    value: T


def _in_process(work: Callable[..., T], job: _Job, tell: OnStage, *arguments: str) -> T:
    """What `work` returns in a fresh process, which tells how far it is on the way."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, work, job, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            found: object = ours.recv()
            if isinstance(found, HybridgeError):
                raise found
            if isinstance(found, _Result):
                return cast(T, found.value)
            tell(*cast(tuple[str, int, int], found))
    except EOFError as error:
        process.join()
        raise ConfigError(
            f"measuring ended with exit code {process.exitcode}; -9 means that the machine has too "
            "little memory for the bundle"
        ) from error
    finally:
        ours.close()
        process.join()


def _run(result: Connection, work: Callable[..., T], job: _Job, *arguments: str) -> None:
    """The whole life of a measuring process."""
    try:
        result.send(_Result(work(job, lambda *told: result.send(told), *arguments)))
    except HybridgeError as error:
        result.send(error)


def _time_stages(job: _Job, tell: OnStage) -> dict[str, StageTime]:
    work = stage_work(DeviceModels(job.bundle, threads=job.threads), job.picture)
    timed = {name: Runs() for name in work}
    for at in range(_PASSES):
        share = job.runs * (at + 1) // _PASSES - job.runs * at // _PASSES
        for done, (name, run) in enumerate(work.items()):
            tell(name, at * len(work) + done, _PASSES * len(work))
            timed[name].extend(time_runs(run, runs=share, warm_up=_WARM_UP))
    return {name: summarize(runs, threads=job.threads) for name, runs in timed.items()}


def _grow(job: _Job, tell: OnStage, model: str) -> int:
    """By how many bytes the peak grows that a model is loaded and run in; 0 if nobody tells."""
    runtime()  # the library itself belongs to no model
    before_bytes = _reset_peak()
    models = DeviceModels(job.bundle, threads=job.threads)
    if model == WHOLE:
        models.warm_up(job.picture)
    elif model == LIGHT:
        models.light(models.resize_light(job.picture))
    else:
        cut, precision = model.removeprefix("head:").rsplit("/", 1)
        pixels = models.resize_large(job.picture)
        before_bytes = _reset_peak()
        models.head(cut, Precision(precision), pixels)
    return max(_peak_bytes() - before_bytes, 0) if before_bytes else 0


def _reset_peak() -> int:
    """The resident size now; the peak starts anew from it. 0 where the system does not tell."""
    try:
        _RESET_PEAK.write_text("5")
    except OSError:
        return 0
    return _field_bytes("VmRSS")


def _peak_bytes() -> int:
    return _field_bytes("VmHWM")


def _field_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
