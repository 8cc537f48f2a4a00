import asyncio
import pickle
from functools import partial

import numpy as np
import pytest

from hybridge.cloud.executors.far_end import FarEnd, LetGo, Open, send
from hybridge.cloud.executors.parcel import Parcel, pack, unpack
from hybridge.cloud.job import Job
from hybridge.cloud.stage import Stage
from hybridge.cloud.work import Answer, Execution, Load, Work
from hybridge.shared.deadline import monotonic
from hybridge.shared.errors import (
    BundleError,
    DeadlineUnmet,
    FrameError,
    HybridgeError,
    TensorError,
)
from hybridge.shared.manifest import Blob
from hybridge.shared.tensor import Array

from ..bundles import random_pixels

PLACE = 5


def work_of(stage: Stage, load: Load, *, left_s: float = 60.0) -> Work:
    now_s = monotonic()
    job = Job(id=1, stage=stage.key, items=1, arrived_s=now_s, deadline_s=now_s + left_s)
    return Work(job=job, load=load, answer=asyncio.get_running_loop().create_future())


def given(array: Array) -> Array:
    return array


def fails(error: Exception) -> Array:
    raise error


def executed(far_end: FarEnd, stage: Stage, *works: Work) -> Execution:
    order = send(works, stage=stage, place=PLACE, now_s=monotonic())
    execution = unpack(far_end.obey(order))
    assert isinstance(execution, Execution)
    return execution


@pytest.fixture
def far_end(stage: Stage) -> FarEnd:
    far_end = FarEnd()
    cost = unpack(far_end.obey(pack(Open(PLACE, pickle.dumps(stage)))))
    assert cost.predict_ms(1) > 0
    return far_end


async def test_a_batch_is_answered_as_it_would_be_here(far_end: FarEnd, stage: Stage) -> None:
    pixels = [random_pixels(seed)[None] for seed in range(3)]
    execution = executed(far_end, stage, *(work_of(stage, partial(given, each)) for each in pixels))
    assert execution.items == 3
    for each, outcome in zip(pixels, execution.outcomes, strict=True):
        assert isinstance(outcome, Answer)
        here = stage.run(each, {}).probabilities
        np.testing.assert_allclose(outcome.probabilities, here, rtol=1e-5)


async def test_faults_stay_with_their_request(far_end: FarEnd, stage: Stage) -> None:
    execution = executed(
        far_end,
        stage,
        work_of(stage, partial(fails, FrameError("cannot be decoded"))),
        work_of(stage, partial(fails, ZeroDivisionError("a defect"))),
        work_of(stage, partial(given, np.zeros((1, 2), np.uint8))),
        work_of(stage, partial(given, random_pixels(0)[None])),
        work_of(stage, partial(given, random_pixels(0)[None]), left_s=-1.0),
    )
    frame, defect, shape, good, late = execution.outcomes
    assert isinstance(frame, FrameError)
    assert type(defect) is HybridgeError
    assert "ZeroDivisionError: a defect" in str(defect)
    assert isinstance(shape, TensorError)
    assert isinstance(good, Answer)
    assert isinstance(late, DeadlineUnmet)


async def test_what_nobody_waits_for_is_not_computed(far_end: FarEnd, stage: Stage) -> None:
    gone = work_of(stage, partial(given, random_pixels(0)[None]))
    gone.answer.cancel()
    assert executed(far_end, stage, gone).items == 0


async def test_a_stage_that_cannot_be_loaded_says_so(stage: Stage) -> None:
    broken: Stage = pickle.loads(pickle.dumps(stage))
    graphs = broken.open.func.__self__  # type: ignore[attr-defined]
    graphs.bundle.file(graphs.variant.whole).write_bytes(b"no graph")
    told = unpack(FarEnd().obey(pack(Open(PLACE, pickle.dumps(broken)))))
    assert isinstance(told, BundleError)
    assert "refuses the graph" in str(told)


async def test_the_stages_of_a_model_share_their_weights(stage: Stage) -> None:
    one, other = (pickle.loads(pickle.dumps(stage)) for _ in range(2))
    assert one.open.func.__self__ is other.open.func.__self__
    assert isinstance(one.open.args[0], Blob)


async def test_what_is_unknown_is_a_defect(far_end: FarEnd, stage: Stage) -> None:
    work = work_of(stage, partial(given, random_pixels(0)[None]))
    order: Parcel = send([work], stage=stage, place=PLACE, now_s=monotonic())
    assert unpack(far_end.obey(pack(LetGo(PLACE)))) is None
    with pytest.raises(KeyError):
        far_end.obey(order)
