"""A real `hybridge build` in a process of its own: time by step, peak memory, bundle."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hybridge.shared.bundle import Bundle, open_bundle
from hybridge.shared.errors import BuildError
from hybridge.shared.manifest import Runtime
from hybridge.shared.signing import SigningKey, TrustStore

_STEP = re.compile(r"^- (.+)$")
_HEADS = re.compile(r"large model to LiteRT|large model to int8|cuts|cutting heads")
_START = "start"
_LAST_LINES = 5
_MB = 1e6
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Built:
    """What a build took; `steps_s` and `steps_bytes` are by what it said it was doing."""

    bundle: Bundle
    seconds: float
    steps_s: dict[str, float]
    steps_bytes: dict[str, int]

    @property
    def peak_bytes(self) -> int:
        """The most that its processes held together at any time."""
        return max(self.steps_bytes.values())

    @property
    def heads_s(self) -> float:
        """Converting, quantizing, finding cuts, checking heads with tails, packing."""
        return sum(seconds for step, seconds in self.steps_s.items() if _HEADS.search(step))


def build(recipe: Path, *, home: Path, on_step: Callable[[str], None]) -> Built:
    """Builds a recipe with nothing in the cache; BuildError with the last lines it wrote."""
    benchmarks = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [benchmarks, os.environ.get("PYTHONPATH", "")]))
    start = time.monotonic()
    said: list[str] = []
    started = [(_START, start)]
    with subprocess.Popen(
        [sys.executable, "-m", "hybridge", "build", recipe, "--json"],
        env=os.environ | {"HYBRIDGE_HOME": str(home), "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        memory = _Memory(process)
        memory.start()
        for line in process.stderr:
            said.append(line.rstrip())
            if step := _STEP.match(line):
                memory.step = step[1].strip()
                started.append((memory.step, time.monotonic()))
                on_step(memory.step)
        answer = process.stdout.read()
        process.wait()
        memory.join()
    end = time.monotonic()
    if process.returncode != 0:
        raise BuildError(f"{recipe}: " + "; ".join(said[-_LAST_LINES:]))
    steps: dict[str, float] = {}
    for (name, begun), (_, ended) in zip(started, [*started[1:], ("", end)], strict=True):
        steps[name] = steps.get(name, 0.0) + ended - begun
    key = SigningKey.load_or_create(home / "keys" / "signing.key")
    return Built(
        bundle=open_bundle(
            Path(json.loads(answer)["path"]), trust=TrustStore(frozenset({key.public_hex}))
        ),
        seconds=end - start,
        steps_s={name: round(seconds, 2) for name, seconds in steps.items()},
        steps_bytes=memory.peaks_bytes,
    )


class _Memory(threading.Thread):
    """Looks at what a process and its children hold together, twenty times a second.

    `peaks_bytes` are the largest sums by `step`, which whoever hears of a new one sets.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        super().__init__(daemon=True)
        self._process = process
        self.step = _START
        self.peaks_bytes: dict[str, int] = {}

    def run(self) -> None:
        while self._process.poll() is None:
            step, held = self.step, _resident_bytes(self._process.pid)
            self.peaks_bytes[step] = max(self.peaks_bytes.get(step, 0), held)
            time.sleep(_LOOK_EVERY_S)  # the interval itself, not a wait for something


def _resident_bytes(pid: int) -> int:
    """Of a process and those it started; 0 once it is gone."""
    root = Path("/proc", str(pid))
    try:
        pages = int((root / "statm").read_text().split()[1])
        children = [
            int(child)
            for task in (root / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(_resident_bytes, children))


@dataclass(frozen=True)
class Disk:
    """Bytes of a bundle's parts; `large` is what is held to 1.5 times the float model."""

    large: int
    float_heads: int
    variants: dict[str, int]
    light: int
    everything: int

    @classmethod
    def of(cls, bundle: Bundle) -> "Disk":
        manifest = bundle.manifest
        large = manifest.large
        heads = {str(precision): blob.bytes for precision, blob in large.head_files.items()}
        tails = {cut.tail.sha256: cut.tail.bytes for cut in large.cuts}
        return cls(
            large=heads.get("int8", 0)
            + large.weights.bytes
            + large.weights_index.bytes
            + large.whole.bytes
            + sum(tails.values()),
            float_heads=heads.get("float32", 0),
            variants={
                str(precision): each.weights.bytes
                + each.weights_index.bytes
                + each.whole.bytes
                + sum(blob.bytes for blob in each.tails.values())
                for precision, each in large.variants.items()
                if each.runtime is not Runtime.TORCH  # those are the float32 ones
            },
            light=manifest.light.blob.bytes,
            everything=sum(blob.bytes for blob in manifest.blobs()),
        )
