"""`hybridge cloud` and `hybridge edge` as they run in the field: processes of their own."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from hybridge.client import Client
from hybridge.protos.oip import MODEL_METADATA
from hybridge.protos.open_inference_pb2 import ModelMetadataRequest
from hybridge.shared.bundle import Bundle
from hybridge.shared.security import Address

from ..bundles import NAME, Small, picture

START_S = 60.0
HERE = "127.0.0.1:0"


class Process:
    """`python -m hybridge ...`, and where it listens."""

    def __init__(self, *arguments: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "hybridge", *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def address(self) -> Address:
        line = self._lines.get(timeout=START_S)
        assert "listening on" in line, self._log.read_text()
        return Address.parse(line.split()[-1])

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.decode())
        self._lines.put("")

    def end(self, number: signal.Signals) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(START_S)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self._reader.join()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@contextlib.contextmanager
def hybridge(*arguments: str, log: Path) -> Iterator[Process]:
    process = Process(*arguments, log=log)
    try:
        yield process
    finally:
        process.close()


def infer(edge: Address, *arguments: str) -> dict[str, object]:
    """What `hybridge infer --json` says of one picture."""
    run = subprocess.run(
        [sys.executable, "-m", "hybridge", "infer", "--edge", str(edge), "--json", *arguments],
        capture_output=True, check=False, timeout=START_S,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (answer,) = json.loads(run.stdout)["answers"]
    return dict(answer)


def test_edge_and_cloud_side_by_side(
    small: Small, bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    any_port = ("--listen", "127.0.0.1:0")
    logs = tmp_path / "cloud.log", tmp_path / "edge.log"
    with hybridge("cloud", *any_port, "--instances", "1", log=logs[0]) as cloud:
        to_cloud = ("--cloud", str(cloud.address))
        with hybridge("edge", "--bundle", NAME, *any_port, *to_cloud, log=logs[1]) as edge:
            address = edge.address
            with Client(str(address)) as client:
                # Until the edge has measured its cloud, it answers alone, and says so.
                answer = client.infer(picture(0), budget_ms=20_000)
                while answer.plan == "local":
                    assert answer.fallback in ("cloud out of reach", "")
                    answer = client.infer(picture(0), budget_ms=20_000)
                assert answer.plan == "cloud:raw"
                assert answer.probabilities == pytest.approx(small.large(picture(0)), abs=1e-5)
            said = infer(address, str(pictures / "a.png"), "--budget", "20000")
            assert (said["plan"], said["within_budget"]) == ("cloud:raw", True)
            assert cloud.end(signal.SIGKILL) == -signal.SIGKILL
            said = infer(address, str(pictures / "a.png"), "--budget", "20000")
            assert (said["plan"], said["within_budget"]) == ("local", True)
            assert said["fallback"]
            assert edge.end(signal.SIGTERM) == 0
    assert "Traceback" not in logs[0].read_text() + logs[1].read_text()


def test_a_cloud_is_asked_to_stop(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "cloud.log"
    doors = [each for name in ("http", "sagemaker", "metrics") for each in (f"--{name}", HERE)]
    with hybridge("cloud", "--listen", HERE, *doors, log=log) as cloud:
        assert cloud.address.port > 0
        (metrics,) = re.findall(r"metrics on (\S+)", log.read_text())
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=START_S) as response:
            assert b"hybridge_requests_in_flight 0.0" in response.read()
        assert cloud.end(signal.SIGTERM) == 0
    assert "Traceback" not in log.read_text()
    assert "http on" in log.read_text()
    assert "sagemaker on" in log.read_text()


def test_a_cloud_with_workers_is_asked_to_stop(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "cloud.log"
    with hybridge("cloud", "--listen", HERE, "--workers", "2", "--preload", log=log) as cloud:
        with grpc.insecure_channel(str(cloud.address)) as channel:
            asked = ModelMetadataRequest(name=NAME).SerializeToString()
            assert channel.unary_unary(MODEL_METADATA.path)(asked, timeout=START_S)
        assert cloud.end(signal.SIGTERM) == 0
    assert "Traceback" not in log.read_text()
    for name in ("worker 1", "worker 2"):
        assert f"{name} is ready" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["edge", "--bundle", "nothing", "--alone"], 66, "no bundle 'nothing'"),
        (["edge", "--bundle", NAME, "--alone", "--bundle-version", "9"], 66, "no version 9"),
        (["edge", "--bundle", NAME, "--alone", "--listen", "0.0.0.0:0"], 78, "--insecure"),
        (["edge", "--bundle", NAME, "--alone", "--listen", "here"], 78, "is no address"),
        (["edge", "--bundle", NAME, "--cloud", "192.0.2.7:1"], 78, "will not connect to"),
        (["edge", "--bundle", NAME, "--alone", "--threads", "0"], 78, "--threads 0"),
        (["cloud", "--listen", "0.0.0.0:0"], 78, "--insecure"),
        (["cloud", "--listen", HERE, "--http", "0.0.0.0:0"], 78, "--insecure"),
        (["cloud", "--listen", HERE, "--metrics", "here"], 78, "is no address"),
        (["cloud", "--instances", "0"], 78, "instances must be at least 1, not 0"),
        (["cloud", "--bundles", "/nowhere"], 78, "/nowhere is no directory"),
    ],
)
def test_daemons_that_cannot_start(
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    from hybridge.cli.main import main

    assert main(arguments) == code
    assert words in capsys.readouterr().err
