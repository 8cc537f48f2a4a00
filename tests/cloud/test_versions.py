"""New versions under running requests: switched to when they are good, and never when not."""

import asyncio
import dataclasses
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from hybridge.cloud import inference as inference_module
from hybridge.cloud.attempt import attempt, ended_one, note_of
from hybridge.cloud.choices import FILE_NAME, choose, chosen
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.model import Model
from hybridge.cloud.opening import open_shelf
from hybridge.cloud.shelf import BundleShelf, Found, Shelf, Snapshot
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.errors import ConfigError
from hybridge.shared.signing import SigningKey, TrustStore

from .bundles import CUT, TinyModel, random_pixels, write_bundle
from .conftest import Cloud, run_cloud
from .test_service import frame_of, probabilities, request_of

Answer = pb.ModelInferResponse


@pytest.fixture
def config(config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, model_control=True)


async def ask(cloud: Cloud, version: str = "") -> Answer:
    return await cloud.stub.ModelInfer(
        request_of("pixels", random_pixels(0), version=version), timeout=100
    )


async def load(cloud: Cloud, **parameters: str) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="tiny")
    for name, value in parameters.items():
        request.parameters[name].string_param = value
    await cloud.stub.RepositoryModelLoad(request)


async def states(cloud: Cloud) -> dict[str, tuple[str, str]]:
    index = await cloud.stub.RepositoryIndex(pb.RepositoryIndexRequest())
    return {each.version: (each.state, each.reason) for each in index.models}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(100):
        while not await condition():  # noqa: ASYNC110  nobody tells when a cloud changes
            await asyncio.sleep(0.02)


async def test_requests_during_a_swap_are_all_answered(
    config: CloudConfig, key: SigningKey, model: TinyModel
) -> None:
    async with run_cloud(config) as cloud:
        frame = frame_of(model.head(random_pixels(0)), contract=model.at_cut, codec="raw")
        await cloud.stub.ModelInfer(request_of("frame", frame), timeout=60)  # the tail is there
        ended = asyncio.Event()

        async def keep_asking() -> list[str]:
            versions: list[str] = []
            while not ended.is_set():
                versions.append((await ask(cloud)).model_version)
            return versions

        asking = [asyncio.ensure_future(keep_asking()) for _ in range(4)]
        write_bundle(config.bundles, key=key, version="2", model=TinyModel(seed=2))
        await load(cloud)
        ended.set()
        for versions in await asyncio.gather(*asking):
            assert versions == sorted(versions), "who was answered by the new one stays with it"
        assert (await ask(cloud)).model_version == "2"
        assert (await ask(cloud, "1")).model_version == "1"
        # Edges with bundles of both are served, and the tail in use is warm in the new one too.
        inference = cloud.server._front.now.inference  # type: ignore[union-attr]
        tails = {stage.key.cut: stage for stage in inference.repository.model("tiny").stages}
        assert tails[CUT].loaded
        assert (await cloud.stub.ModelInfer(request_of("frame", frame))).model_version == "1"
        new = TinyModel(seed=2)
        tensor = new.head(random_pixels(0))
        response = await cloud.stub.ModelInfer(
            request_of("frame", frame_of(tensor, contract=new.at_cut, codec="raw"))
        )
        assert response.model_version == "2"
        np.testing.assert_allclose(probabilities(response), new.tail(tensor), rtol=1e-4)


async def test_who_looked_before_a_switch_is_answered(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, go_on = asyncio.Event(), asyncio.Event()
    read_input = inference_module.read_input

    async def read_slowly(*args: object, **options: object) -> object:
        found = await read_input(*args, **options)  # type: ignore[arg-type]
        looked.set()
        await go_on.wait()
        return found

    async with run_cloud(config) as cloud:
        monkeypatch.setattr(inference_module, "read_input", read_slowly)
        call = asyncio.ensure_future(ask(cloud))
        await looked.wait()
        unload = pb.RepositoryModelUnloadRequest(model_name="tiny")
        unloading = asyncio.ensure_future(cloud.stub.RepositoryModelUnload(unload).code())
        await until(lambda: is_state(cloud, "1", "UNLOADING"))
        go_on.set()
        assert (await call).model_version == "1"
        assert await unloading is grpc.StatusCode.OK
        assert (await states(cloud))["1"] == ("UNAVAILABLE", "not loaded")


async def is_state(cloud: Cloud, version: str, state: str) -> bool:
    return (await states(cloud)).get(version, ("", ""))[0] == state


async def test_a_version_off_its_golden_answer_is_refused(
    config: CloudConfig, key: SigningKey
) -> None:
    async with run_cloud(config) as cloud:
        good = probabilities(await ask(cloud))[0]
        write_bundle(config.bundles, key=key, version="2", answer=good)
        write_bundle(config.bundles, key=key, version="3", answer=np.roll(good, 1))
        await load(cloud)
        told = await states(cloud)
        assert (told["1"], told["2"]) == (("READY", ""), ("READY", ""))
        assert told["3"][0] == "UNAVAILABLE"
        assert "off its golden one" in told["3"][1]
        assert (await ask(cloud)).model_version == "2"
    async with run_cloud(config) as again:
        assert (await ask(again)).model_version == "2"
        assert "off its golden one" in (await states(again))["3"][1]


@dataclasses.dataclass(frozen=True)
class Deadly(Shelf):
    """What opens it in another process is ended by a signal, as by a crash in a runtime."""

    inner: Shelf

    def found(self, *, everything: bool = False) -> list[Found]:
        return self.inner.found(everything=everything)

    def open(self, found: Found, *, load: bool = True) -> Model:
        raise AssertionError("it is never opened here")

    def __reduce__(self) -> tuple[object, ...]:
        return (os.abort, ())


async def test_a_version_that_crashes_takes_nothing_down(
    config: CloudConfig, key: SigningKey
) -> None:
    async with run_cloud(config) as cloud:
        control = cloud.server._control
        assert control is not None
        control._shelf = Deadly(control._shelf)
        write_bundle(config.bundles, key=key, version="2")
        await load(cloud)
        state, reason = (await states(cloud))["2"]
        assert state == "UNAVAILABLE"
        assert "SIGABRT" in reason
        assert (await ask(cloud)).model_version == "1"


def shelf_of(bundles: Path, trust: TrustStore) -> BundleShelf:
    return BundleShelf(root=bundles, trust=trust, max_batch=2)


DIE = """
import os, sys
from pathlib import Path
from hybridge.cloud.attempt import attempt
with attempt(Path(sys.argv[1]), mark=sys.argv[2]):
    os.abort()
"""


def test_what_ended_a_cloud_is_left_out_at_the_next_start(
    bundles: Path, key: SigningKey, trust: TrustStore
) -> None:
    write_bundle(bundles, key=key, version="2")
    shelf = shelf_of(bundles, trust)
    first, second = shelf.found()
    for found in (first, second):
        died = subprocess.run([sys.executable, "-c", DIE, found.path, found.mark], check=False)
        assert died.returncode == -signal.SIGABRT
        assert ended_one(found.path, mark=found.mark)
        assert not ended_one(found.path, mark="other files")
        opened = open_shelf(shelf)
        # Where nothing else is left, a version that may have been killed by hand is tried again.
        left_out = ["2"] if found is second else ["1"]
        assert [version for _, version in opened.reasons] == left_out
        note_of(found.path).unlink()


def test_who_is_still_loading_has_not_ended(tmp_path: Path) -> None:
    version = tmp_path / "1"
    with attempt(version, mark="a"):
        assert note_of(version).read_text() == "a"
        assert not ended_one(version, mark="a")
    assert not note_of(version).exists()
    with attempt(tmp_path / "nowhere" / "1", mark="a"):
        assert not ended_one(tmp_path / "nowhere" / "1", mark="a")


def test_a_full_disk_keeps_no_version_from_being_loaded(tmp_path: Path) -> None:
    version = tmp_path / "1"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # files can be made, and not written
    try:
        with attempt(version, mark="a"):
            assert not ended_one(version, mark="a")
        with pytest.raises(ConfigError, match="cannot be kept"):
            choose(tmp_path, "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [*tmp_path.iterdir()]


ROLLBACK = """
import sys
from hybridge.cli.main import main
sys.exit(main(["rollback", "tiny", "--at", *sys.argv[1:]]))
"""


async def rollback(cloud: Cloud, *options: str) -> tuple[int, str]:
    """The exit code of the command, and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ROLLBACK, str(cloud.address), *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told, _ = await process.communicate()
    return await process.wait(), told.decode()


async def test_rollback_by_command_survives_a_restart(config: CloudConfig, key: SigningKey) -> None:
    for version in ("2", "3"):
        write_bundle(config.bundles, key=key, version=version)
    async with run_cloud(config) as cloud:
        assert (await ask(cloud)).model_version == "3"
        code, told = await rollback(cloud)
        assert (code, told.strip()) == (0, "tiny: version 2 answers; 3, 1 by name")
        assert (await ask(cloud)).model_version == "2"
        assert (await ask(cloud, "3")).model_version == "3"
        assert (await states(cloud))["2"] == ("READY", "the default, as chosen")
    async with run_cloud(config) as cloud:
        assert (await ask(cloud)).model_version == "2"
        await load(cloud)
        assert (await ask(cloud)).model_version == "2"
        await load(cloud, version="previous")
        assert (await ask(cloud)).model_version == "1"
        with pytest.raises(grpc.aio.AioRpcError, match="no version 'previous'"):
            await load(cloud, version="previous")
        code, told = await rollback(cloud, "--to", "7")
        assert code != 0
        assert "there: 1, 2, 3" in told
        assert (await ask(cloud)).model_version == "1"
        await load(cloud, version="newest")
        assert (await ask(cloud)).model_version == "3"
    assert not (config.bundles / "tiny" / FILE_NAME).exists()


async def test_files_that_were_away_for_a_while_leave_no_complaint(config: CloudConfig) -> None:
    async with run_cloud(config) as cloud:
        blobs = config.bundles / "tiny" / "1" / "blobs"
        away = blobs.rename(config.bundles / "away")
        await load(cloud)  # what is served stays
        state, reason = (await states(cloud))["1"]
        assert state == "READY"
        assert "is missing" in reason
        assert (await ask(cloud)).model_version == "1"
        away.rename(blobs)
        await load(cloud)
        assert (await states(cloud))["1"] == ("READY", "")


async def test_rollback_is_the_operators(config: CloudConfig) -> None:
    async with run_cloud(dataclasses.replace(config, model_control=False)) as cloud:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await load(cloud, version="1")
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_what_changes_on_disk_is_followed(
    config: CloudConfig, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Semaphore(0)
    snapshot = BundleShelf.snapshot

    def counted(shelf: BundleShelf) -> Snapshot:
        seen = snapshot(shelf)
        if not seen:
            looked.release()
        return seen

    monkeypatch.setattr(BundleShelf, "snapshot", counted)
    following = dataclasses.replace(config, model_control=False, poll_s=0.05)
    async with run_cloud(following) as cloud:
        write_bundle(config.bundles, key=key, version="2", model=TinyModel(seed=2))
        await until(lambda: answers(cloud, "2"))
        choose(config.bundles / "tiny", "1")  # as another cloud of this directory would
        await until(lambda: answers(cloud, "1"))
        (config.bundles / "tiny" / "2" / "manifest.json").unlink()
        choose(config.bundles / "tiny", "")
        await until(lambda: not_there(cloud, "2"))
        assert (await ask(cloud)).model_version == "1"
        config.bundles.rename(config.bundles.with_name("away"))  # as a mount that is lost
        for _ in range(3):
            assert await asyncio.to_thread(looked.acquire, timeout=60)
        assert (await ask(cloud)).model_version == "1"


async def test_a_directory_that_is_away_for_a_moment_is_followed_when_it_is_back(
    config: CloudConfig, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, away = BundleShelf.snapshot, iter([False, True])

    def wavering(shelf: BundleShelf) -> Snapshot:
        seen = snapshot(shelf)
        if len(seen["tiny"].versions) == 2 and next(away, False):
            raise OSError("stale file handle")  # when the change has been seen, and is to be loaded
        return seen

    following = dataclasses.replace(config, poll_s=0.05)
    async with run_cloud(following) as cloud:
        monkeypatch.setattr(BundleShelf, "snapshot", wavering)
        write_bundle(config.bundles, key=key, version="2", model=TinyModel(seed=2))
        await until(lambda: answers(cloud, "2"))
    assert next(away, None) is None


async def answers(cloud: Cloud, version: str) -> bool:
    return (await ask(cloud)).model_version == version


async def not_there(cloud: Cloud, version: str) -> bool:
    return version not in await states(cloud)


def test_a_choice_that_cannot_be_kept_or_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert chosen(tmp_path) == ""
    (tmp_path / FILE_NAME).write_text("{")
    assert chosen(tmp_path) == ""
    assert "says nothing" in caplog.text
    with pytest.raises(ConfigError, match="nothing was changed"):
        choose(tmp_path / "none", "2")
