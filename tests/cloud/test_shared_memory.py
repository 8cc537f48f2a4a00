"""Tensors in shared memory, to Triton's own client and its own regions."""

import asyncio
import dataclasses
import os
import resource
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]
from tritonclient.utils import shared_memory as regions

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.shared_memory import SharedMemory as Regions
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.errors import TensorError
from hybridge.shared.oip import InferResponse, RequestedOutput

from .bundles import CLASSES, random_pixels
from .conftest import Cloud, run_cloud
from .test_bad_input import check_serves
from .test_protocol import use
from .test_service import probabilities, request_of

PIXELS_BYTES = 16 * 16 * 3
ANSWER_BYTES = CLASSES * 4


@pytest.fixture
def config(config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, shared_memory=True)


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    """A picture from byte 64 on, and room for an answer behind it."""
    memory = SharedMemory(create=True, size=4096)
    try:
        memory.buf[64 : 64 + PIXELS_BYTES] = random_pixels(1).tobytes()
        yield memory
    finally:
        memory.close()
        memory.unlink()


def picture(name: str, *, size: int = PIXELS_BYTES, offset: int = 0) -> Any:
    source = triton.InferInput("pixels", [1, 16, 16, 3], "UINT8")
    source.set_shared_memory(name, size, offset)
    return source


async def test_as_tritonclient_does_it(cloud: Cloud) -> None:
    expected = probabilities(await cloud.stub.ModelInfer(request_of("pixels", random_pixels(1))))

    def check(client: Any) -> None:
        key = f"hybridge-test-{os.getpid()}"
        handle = regions.create_shared_memory_region("mine", key, 1024)
        try:
            regions.set_shared_memory_region(handle, [random_pixels(1)])
            client.register_system_shared_memory("mine", key, 1024)
            (told,) = client.get_system_shared_memory_status().regions.values()
            assert (told.name, told.key, told.byte_size) == ("mine", key, 1024)
            wanted = triton.InferRequestedOutput("probabilities")
            wanted.set_shared_memory("mine", ANSWER_BYTES, 768)
            result = client.infer("tiny", [picture("mine")], outputs=[wanted])
            output = result.get_output("probabilities")
            assert output.parameters["shared_memory_region"].string_param == "mine"
            answer = regions.get_contents_as_numpy(handle, np.float32, [1, CLASSES], 768)
            np.testing.assert_allclose(answer, expected, rtol=1e-5)
            plain = client.infer("tiny", [picture("mine")]).as_numpy("probabilities")
            np.testing.assert_allclose(plain, expected, rtol=1e-5)
            client.unregister_system_shared_memory("mine")
            assert len(client.get_system_shared_memory_status().regions) == 0
            with pytest.raises(InferenceServerException, match="no region 'mine'"):
                client.infer("tiny", [picture("mine")])
        finally:
            regions.destroy_shared_memory_region(handle)

    await use(cloud, check)


async def test_beside_tensors_that_come_along(cloud: Cloud, memory: SharedMemory) -> None:
    await register(cloud, memory, offset=64, size=PIXELS_BYTES)
    sent = request_of("pixels", random_pixels(2))
    there = sent.inputs.add(name="frame", datatype="UINT8", shape=[4])
    there.parameters["shared_memory_region"].string_param = "mine"
    there.parameters["shared_memory_byte_size"].int64_param = 4
    await refused(cloud, sent, "exactly one input")  # both were read, each from its place
    sent.raw_input_contents.append(b"too many")
    await refused(cloud, sent, "1 inputs came with 2 raw contents")


async def register(
    cloud: Cloud, memory: SharedMemory, *, offset: int = 0, size: int = 4096, name: str = "mine"
) -> None:
    request = pb.SystemSharedMemoryRegisterRequest(
        name=name, key=memory.name, offset=offset, byte_size=size
    )
    await cloud.stub.SystemSharedMemoryRegister(request)


async def refused(
    cloud: Cloud,
    request: pb.ModelInferRequest,
    words: str,
    *,
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.ModelInfer(request, timeout=30)
    assert caught.value.code() is code
    assert words in str(caught.value.details())
    await check_serves(cloud)


def in_region(**parameters: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="pixels", datatype="UINT8", shape=[16, 16, 3])
    tensor.parameters["shared_memory_region"].string_param = "mine"
    for name, value in {"byte_size": PIXELS_BYTES, **parameters}.items():
        tensor.parameters[f"shared_memory_{name}"].int64_param = value
    return request


async def test_offsets_add_up(cloud: Cloud, memory: SharedMemory) -> None:
    await register(cloud, memory, offset=32, size=1024)
    expected = probabilities(await cloud.stub.ModelInfer(request_of("pixels", random_pixels(1))))
    answer = await cloud.stub.ModelInfer(in_region(offset=32))
    np.testing.assert_allclose(probabilities(answer), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"offset": 1024}, "outside region"),
        ({"byte_size": 1025}, "outside region"),
        ({"byte_size": 1 << 40}, "larger than a message"),
        ({"byte_size": 100}, "takes 768 bytes, 100 were sent"),
        ({"offset": -1}, "whole numbers"),
    ],
)
async def test_tensors_that_lie_wrong(
    cloud: Cloud, memory: SharedMemory, parameters: dict[str, int], words: str
) -> None:
    await register(cloud, memory, size=1024)
    await refused(cloud, in_region(**parameters), words)


async def test_memory_that_shrinks_harms_nobody(cloud: Cloud, memory: SharedMemory) -> None:
    await register(cloud, memory)
    await cloud.stub.ModelInfer(in_region(offset=64))
    os.truncate(f"/dev/shm/{memory.name}", 100)
    await refused(cloud, in_region(offset=64), "has shrunk")
    os.truncate(f"/dev/shm/{memory.name}", 4096)


@pytest.mark.parametrize(
    ("object_key", "size"),
    [("", 1), ("/", 1), ("../etc/passwd", 1), ("a/b", 1), ("no-such-object", 1), (None, 5000),
     (None, 0), ("a\0b", 1)],
)  # fmt: skip
async def test_objects_that_are_none(
    cloud: Cloud, memory: SharedMemory, object_key: str | None, size: int
) -> None:
    request = pb.SystemSharedMemoryRegisterRequest(
        name="mine", key=memory.name if object_key is None else object_key, byte_size=size
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.SystemSharedMemoryRegister(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_memory_that_cannot_be_written(memory: SharedMemory) -> None:
    shared = Regions(allowed=True)
    shared.register("mine", key=memory.name, offset=0, size_bytes=4096)
    wanted = {"shared_memory_region": "mine", "shared_memory_byte_size": 4096}
    response = InferResponse(
        model_name="m", model_version="1", id="", parameters={}, outputs={"y": np.ones(1024, "f4")}
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most, words in ((1000, "has shrunk"), (0, "cannot be written")):
        os.truncate(f"/dev/shm/{memory.name}", 0)  # as full as if there were no memory left
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            with pytest.raises(TensorError, match=words):
                shared.place(response, [RequestedOutput(name="y", parameters=wanted)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    os.truncate(f"/dev/shm/{memory.name}", 4096)
    shared.unregister("")


async def test_names_are_taken_once(cloud: Cloud, memory: SharedMemory) -> None:
    await register(cloud, memory)
    with pytest.raises(grpc.aio.AioRpcError, match="is there already"):
        await register(cloud, memory)
    await register(cloud, memory, name="other")
    await cloud.stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    status = await cloud.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
    assert len(status.regions) == 0
    with pytest.raises(grpc.aio.AioRpcError, match="no region 'mine'"):
        await cloud.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name="mine"))


async def test_memory_is_shared_only_where_that_was_said(
    config: CloudConfig, memory: SharedMemory
) -> None:
    async with run_cloud(dataclasses.replace(config, shared_memory=False)) as cloud:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await register(cloud, memory)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        code = grpc.StatusCode.PERMISSION_DENIED
        await refused(cloud, in_region(), "--shared-memory", code=code)


async def test_files_are_closed_with_the_cloud(config: CloudConfig, memory: SharedMemory) -> None:
    def open_now() -> int:
        return sum(
            os.path.exists(f"/proc/self/fd/{file}")  # noqa: PTH110
            and memory.name in os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
            for file in os.listdir("/proc/self/fd")  # noqa: PTH208
        )

    before = await asyncio.to_thread(open_now)
    async with run_cloud(config) as cloud:
        await register(cloud, memory)
        assert await asyncio.to_thread(open_now) == before + 1
    assert await asyncio.to_thread(open_now) == before
