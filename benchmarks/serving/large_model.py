"""A model larger than the memory it may take: the same answers, so much memory, so much slower.

    python benchmarks/serving/large_model.py [--quick] [--json] [--large-weights 8GiB]

A bundle of random weights is served by `hybridge cloud` without a limit, which the machine needs
the memory for, and with one, in a memory cgroup of a little more, where one can be made. What the
kernel says each took (VmHWM: the most that ever was resident; in the group page cache too) is read
at the end. Requests are the same, one after the other.
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
from _common import Report, Target, load, machine, parser, run
from serving import large_bundle
from serving.findings import Asked, Findings
from serving.memory_group import MemoryGroup, memory_group

from hybridge.cli.console import notes, table
from hybridge.cli.demo.processes import Daemon
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import SERVICE_NAME
from hybridge.shared import oip
from hybridge.shared.signing import SigningKey
from hybridge.shared.sizes import parse_bytes, written_bytes
from hybridge.shared.tensor import Array

_GIB = 1 << 30
_MORE = 1.125
"""What the kernel lets the process take, page cache included: 4.5 GiB where 4 GiB are the limit."""

_ASKED_BYTES = 8 * _GIB
ASKED = [
    Asked("peak resident memory under the limit", "GiB", _ASKED_BYTES / _GIB / 2 * _MORE),
    Asked("largest difference of answers", "", 0.0),
    Asked("slowdown that was printed", "x", 1.0),
]

_TOLD = re.compile(
    r"does not fit: (?P<kept>.+?) of its weights stay in memory, (?P<read>.+?) are read .*?; "
    r"(?P<run>[\d.]+) ms for one, (?P<slowdown>[\d.]+) times the (?P<computing>[\d.]+) ms"
)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What one server answered, took and said."""

    answers: Array
    times_ms: list[float]
    started_s: float
    peak_bytes: int
    group_peak_bytes: int | None
    told: dict[str, str] | None

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times_ms)


def add_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--large-weights", metavar="SIZE", help="8GiB; --quick: 2GiB")
    made.add_argument("--large-limit", metavar="SIZE", help="half of the weights")
    made.add_argument(
        "--large-folder", type=Path, metavar="DIR", help="where the bundle is written, and left"
    )


def measure(options: argparse.Namespace) -> Findings:
    weights_bytes = parse_bytes(options.large_weights or ("2GiB" if options.quick else "8GiB"))
    limit = parse_bytes(options.large_limit) if options.large_limit else weights_bytes // 2
    requests = 3 if options.quick else 5
    with tempfile.TemporaryDirectory(prefix="hybridge-large-") as scratch:
        folder = options.large_folder or Path(scratch)
        key = SigningKey.load_or_create(folder / "keys" / "signing.key")
        if not (folder / "bundles" / large_bundle.NAME / "1" / "manifest.sig").exists():
            notes.print(f"large_model: writing {written_bytes(weights_bytes)}")
            large_bundle.write_bundle(folder / "bundles", key=key, weights_bytes=weights_bytes)
        public = folder / "builder.pub"
        public.write_text(key.public_hex)
        notes.print("large_model: all in memory")
        free = _serve(folder, requests=requests)
        notes.print(f"large_model: with a limit of {written_bytes(limit)}")
        with memory_group(int(limit * _MORE)) as group:
            short = _serve(folder, requests=requests, limit_bytes=limit, group=group)
            kills = group.kills if group is not None else None
    return _findings(free, short, limit=limit, weights_bytes=weights_bytes, kills=kills)


def _serve(
    folder: Path, *, requests: int, limit_bytes: int | None = None, group: MemoryGroup | None = None
) -> Serving:
    limit = ["--memory-limit", str(limit_bytes)] if limit_bytes is not None else []
    log = folder / ("limited.log" if limit else "free.log")
    started_s = time.monotonic()
    with Daemon(
        "cloud",
        [
            *("--listen", "127.0.0.1:0", "--runtime", "torch", "--instances", "1"),
            *("--max-batch", "1", "--bundles", str(folder / "bundles")),
            *("--trust", str(folder / "builder.pub"), *limit),
        ],
        log=log,
        prefix=group.prefix if group is not None else (),
    ) as cloud:
        with grpc.insecure_channel(str(cloud.address)) as channel:
            answers, times_ms, ready_s = _ask(channel, requests)
        peak_bytes = _peak_bytes(cloud.pid)
        group_peak_bytes = group.peak_bytes if group is not None else None
    said = _TOLD.search(log.read_text())
    return Serving(
        answers=answers,
        times_ms=times_ms,
        started_s=ready_s - started_s,
        peak_bytes=peak_bytes,
        group_peak_bytes=group_peak_bytes,
        told=said.groupdict() if said else None,
    )


def _ask(channel: grpc.Channel, requests: int) -> tuple[Array, list[float], float]:
    """Answers, how long each took, and when the server was ready for the first."""
    infer = channel.unary_unary(
        f"/{SERVICE_NAME}/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    answers: list[Array] = []
    times_ms: list[float] = []
    ready_s = 0.0
    for seed in range(requests + 1):
        rng = np.random.default_rng(seed)
        shape = (large_bundle.SIZE, large_bundle.SIZE, 3)
        request = pb.ModelInferRequest(model_name=large_bundle.NAME)
        oip.add_input(request, oip.PIXELS, rng.integers(0, 256, shape, np.uint8))
        begun_s = time.monotonic()
        response = infer(request, timeout=600.0, wait_for_ready=True)
        took_ms = (time.monotonic() - begun_s) * 1e3
        answers.append(oip.output_array(response, oip.PROBABILITIES)[0])
        if seed == 0:
            ready_s = time.monotonic()
        else:
            times_ms.append(took_ms)
    return np.stack(answers), times_ms, ready_s


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _findings(
    free: Serving, short: Serving, *, limit: int, weights_bytes: int, kills: int | None
) -> Findings:
    off = float(np.abs(np.subtract(free.answers, short.answers)).max())
    slowdown = short.median_ms / free.median_ms
    told = short.told or {}
    asked, less = written_bytes(_ASKED_BYTES), weights_bytes < _ASKED_BYTES
    note = f"{written_bytes(weights_bytes)} of weights; {asked} are asked" if less else ""
    rows = [
        (
            name,
            f"{each.peak_bytes / _GIB:.2f}",
            "-" if each.group_peak_bytes is None else f"{each.group_peak_bytes / _GIB:.2f}",
            f"{each.median_ms:,.0f}",
            f"{each.started_s:.0f}",
        )
        for name, each in (("all in memory", free), (f"limit {written_bytes(limit)}", short))
    ]
    return Findings(
        targets=[
            Target.at_most(
                "peak resident memory under the limit",
                short.peak_bytes / _GIB,
                unit="GiB",
                bound=limit * _MORE / _GIB,
                note=note,
            ),
            Target.at_most("largest difference of answers", off, unit="", bound=0.0, note=note),
            Target.at_least(
                "slowdown that was printed",
                float(told.get("slowdown", 0)),
                unit="x",
                bound=1.0,
                note=note,
            ),
        ],
        figures={
            "weights_bytes": weights_bytes,
            "limit_bytes": limit,
            "free_peak_bytes": free.peak_bytes,
            "limited_peak_bytes": short.peak_bytes,
            "limited_group_peak_bytes": short.group_peak_bytes,
            "limited_group_kills": kills,
            "slowdown_measured": slowdown,
            "told": told,
            "largest_difference": off,
            "free_ms": free.median_ms,
            "limited_ms": short.median_ms,
        },
        samples={"free_ms": free.times_ms, "limited_ms": short.times_ms},
        tables=[
            table(
                f"{written_bytes(weights_bytes)} of weights",
                ("served", "peak resident GiB", "peak of its group GiB", "ms for one", "start s"),
                rows,
            )
        ],
        notes=[
            f"measured {slowdown:.2f} times slower; the server said {told or 'nothing'}",
            f"answers {'are equal bit for bit' if off == 0 else f'differ by up to {off:.2g}'}",
            "resident memory is VmHWM: mapped files count as far as they are in memory; page cache "
            "that nobody maps does not, but counts in the group, which the kernel held to "
            f"{written_bytes(int(limit * _MORE))}"
            if kills is not None
            else "no memory cgroup could be made here: only VmHWM was read",
        ],
    )


def _report(options: argparse.Namespace) -> Report:
    before = load()
    found = measure(options)
    return Report(
        benchmark="serving/large_model",
        targets=found.targets,
        figures=dict(found.figures),
        samples=dict(found.samples),
        machine=machine(load_before=before),
        notes=found.notes,
        tables=found.tables,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    add_options(made)
    return run(_report, made.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
