import asyncio
import dataclasses
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from hybridge.cloud import server as server_module
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.opening import Opened, open_shelf
from hybridge.cloud.server import CloudServer, serve
from hybridge.cloud.shelf import Shelf
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import Stub
from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address, Security
from hybridge.shared.signing import SigningKey, TrustStore

from .bundles import CLASSES, random_pixels
from .conftest import run_cloud
from .test_bad_input import gated, inference_of, whole_stage
from .test_service import probabilities, request_of

HANG = """
import threading
from hybridge.cloud.executors import threads
def hang(*_, **__):
    print("hanging", flush=True)
    threading.Event().wait()
threads.execute = hang
threads._AT_ONCE_MS = 0.0  # on a thread, as what takes longer
"""
DAEMON = """
import asyncio, logging, sys
from pathlib import Path
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.server import serve
from hybridge.shared.security import Address
from hybridge.shared.signing import TrustStore
logging.basicConfig(level=logging.INFO)
config = CloudConfig(bundles=Path(sys.argv[1]), trust=TrustStore(frozenset({sys.argv[2]})),
                     address=Address("127.0.0.1", 0), instances=1, grace_ms=60_000)
asyncio.run(serve(config, on_listening=lambda address: print(address, flush=True)))
"""


async def test_not_ready_until_the_models_are_loaded(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, listening = threading.Event(), asyncio.Event()

    def open_late(shelf: Shelf, *, load: bool) -> Opened:
        assert allowed.wait(60)
        return open_shelf(shelf, load=load)

    monkeypatch.setattr(server_module, "open_shelf", open_late)
    server = CloudServer(config)
    starting = asyncio.ensure_future(server.startup(on_listening=lambda _: listening.set()))
    await listening.wait()
    async with Security().channel(server.address) as channel:
        stub = Stub(channel)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="tiny"))).ready
        early = asyncio.ensure_future(stub.ModelInfer(request_of("pixels", random_pixels(0))))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request_of("pixels", random_pixels(0)), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        allowed.set()
        await starting
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert probabilities(await early).shape == (1, CLASSES)
    await server.shutdown()


async def test_shutdown_finishes_what_was_accepted(config: CloudConfig) -> None:
    async with (
        run_cloud(dataclasses.replace(config, instances=1)) as cloud,
        gated(whole_stage(cloud)) as gate,
    ):
        requests = [request_of("pixels", random_pixels(seed)) for seed in range(3)]
        calls = [asyncio.ensure_future(cloud.stub.ModelInfer(each)) for each in requests]
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
        while len(inference_of(cloud).worker._works) < len(calls):
            await cloud.stub.ServerLive(pb.ServerLiveRequest())
        stopping = asyncio.ensure_future(cloud.server.shutdown())
        gate.allowed.set()
        for response in await asyncio.gather(*calls):
            assert probabilities(response).shape == (1, CLASSES)
        await stopping
        with pytest.raises(grpc.aio.AioRpcError):
            await cloud.stub.ServerLive(pb.ServerLiveRequest())


async def test_no_bundles(tmp_path: Path, trust: TrustStore) -> None:
    config = CloudConfig(bundles=tmp_path, trust=trust, address=Address("127.0.0.1", 0))
    with pytest.raises(ConfigError, match="no bundle under"):
        await serve(config)


async def test_only_broken_bundles(config: CloudConfig) -> None:
    manifest = config.bundles / "tiny" / "1" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(ConfigError, match="was altered"):
        await asyncio.wait_for(serve(config), 30)


async def test_port_taken(config: CloudConfig) -> None:
    async with run_cloud(config) as cloud:
        with pytest.raises(ConfigError, match="cannot listen"):
            await serve(dataclasses.replace(config, address=cloud.address))


async def test_will_not_listen_in_the_open_without_tls(config: CloudConfig) -> None:
    with pytest.raises(ConfigError, match="without TLS"):
        await serve(dataclasses.replace(config, address=Address("0.0.0.0", 0)))


async def test_signals_are_restored(config: CloudConfig) -> None:
    before = signal.getsignal(signal.SIGTERM)
    listening: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(config, on_listening=listening.set_result))
    await listening
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(serving, 30)
    assert signal.getsignal(signal.SIGTERM) is before


@asynccontextmanager
async def daemon(
    bundles: Path, key: SigningKey, *, prelude: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", prelude + DAEMON, str(bundles), key.public_hex,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def read_until(stream: asyncio.StreamReader | None, word: bytes) -> bytes:
    assert stream is not None
    while line := await asyncio.wait_for(stream.readline(), 60):
        if word in line:
            return line
    raise AssertionError(f"{word!r} never came")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_the_daemon(
    bundles: Path, key: SigningKey, number: signal.Signals
) -> None:
    async with daemon(bundles, key) as process:
        address = (await read_until(process.stdout, b":")).decode().strip()
        await read_until(process.stderr, f"listening on {address}".encode())
        await read_until(process.stderr, b"ready: tiny/1/whole")
        async with Security().channel(Address.parse(address)) as channel:
            response = await Stub(channel).ModelInfer(request_of("pixels", random_pixels(0)))
            assert probabilities(response).shape == (1, CLASSES)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_a_second_signal_forces_the_exit(bundles: Path, key: SigningKey) -> None:
    async with daemon(bundles, key, prelude=HANG) as process:
        address = (await read_until(process.stdout, b":")).decode().strip()
        await read_until(process.stderr, b"ready")
        async with Security().channel(Address.parse(address)) as channel:
            call = Stub(channel).ModelInfer(request_of("pixels", random_pixels(0)))
            hanging = asyncio.ensure_future(call.code())
            await read_until(process.stdout, b"hanging")
            process.send_signal(signal.SIGTERM)
            await read_until(process.stderr, b"draining")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 128 + signal.SIGTERM
            assert await hanging is grpc.StatusCode.UNAVAILABLE
