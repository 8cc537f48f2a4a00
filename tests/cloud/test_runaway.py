"""Models that go on and on, or answer with more than can be sent: nobody else notices."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest

from hybridge.cloud import leash
from hybridge.cloud.audience import WAITING
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.job import Job, StageKey
from hybridge.cloud.onnx_file import OnnxFile
from hybridge.cloud.work import Errand
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.deadline import monotonic
from hybridge.shared.errors import DeadlineUnmet, ModelFault
from hybridge.shared.security import MAX_MESSAGE_BYTES, Address

from .conftest import Cloud
from .named_models import write_count, write_fill
from .test_bad_input import inference_of
from .test_remote import until

FOR_EVER = 1 << 60
FOUR_BYTES = MAX_MESSAGE_BYTES // 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    write_count(root / "count" / "1")
    write_fill(root / "fill" / "1")
    return root


@pytest.fixture
def config(config: CloudConfig, root: Path) -> CloudConfig:
    return dataclasses.replace(
        config,
        bundles=root / "none",
        model_repository=root,
        http=Address("127.0.0.1", 0),
        instances=1,
    )


def request(model: str, k: int) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=model)
    oip.add_input(made, "k", np.array([k], np.int64))
    return made


async def ones(cloud: Cloud, k: int) -> int:
    response = await cloud.stub.ModelInfer(request("fill", k), timeout=60)
    return int(oip.output_array(response, "ones").sum())


async def test_a_run_that_nobody_waits_for_ends(cloud: Cloud) -> None:
    for _ in range(2):
        endless = cloud.stub.ModelInfer(request("count", FOR_EVER), timeout=60)
        sent = asyncio.ensure_future(_settled(endless))
        await until(partial(_runs, cloud))
        endless.cancel()
        await sent
    assert await ones(cloud, 3) == 3  # by the only instance


async def _runs(cloud: Cloud) -> bool:
    await cloud.stub.ServerLive(pb.ServerLiveRequest())
    return inference_of(cloud).worker.running > 0


async def _settled(call: grpc.aio.UnaryUnaryCall[pb.ModelInferRequest, object]) -> None:
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await call


def test_a_run_ends_at_the_last_deadline(root: Path) -> None:
    file = OnnxFile(root / "count" / "1" / "model.onnx")
    assert file.run({"k": np.array([5])}, outputs=["turns"])["turns"] == [5.0]
    now_s = monotonic()
    job = Job(
        id=0,
        stage=StageKey("count", "1"),
        items=1,
        arrived_s=now_s,
        deadline_s=now_s + 0.05,
        rank=0,
    )
    token = WAITING.set([Errand(job=job, load=lambda: np.zeros(1))])
    try:
        with pytest.raises(DeadlineUnmet, match="nobody waits any more"):
            file.run({"k": np.array([FOR_EVER])}, outputs=["turns"])
    finally:
        WAITING.reset(token)


def test_a_first_run_that_goes_on_is_the_models_fault(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leash, "_TRY_S", 0.05)
    file = OnnxFile(root / "count" / "1" / "model.onnx")
    with pytest.raises(ModelFault, match=r"did not end in 0\.05 s"):
        file.run({"k": np.array([FOR_EVER])}, outputs=["turns"])


async def test_an_answer_too_large_for_a_message(cloud: Cloud) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ones(cloud, FOUR_BYTES + 1)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"takes {MAX_MESSAGE_BYTES + 4} bytes" in str(caught.value.details())
    assert await ones(cloud, 3) == 3


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_the_same_over_http_and_as_a_list(
    cloud: Cloud, session: aiohttp.ClientSession
) -> None:
    url = f"http://{cloud.server.sites['http']}/v2/models/fill/infer"
    for k, words in ((FOUR_BYTES + 1, "and a message holds"), (1 << 21, "ask for it in binary")):
        tensor = {"name": "k", "datatype": "INT64", "shape": [1], "data": [k]}
        async with session.post(url, json={"inputs": [tensor]}) as response:
            assert response.status == 400
            assert words in (await response.json())["error"]
    assert await ones(cloud, 3) == 3
