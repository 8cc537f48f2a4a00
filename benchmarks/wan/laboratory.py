"""Edge and cloud as real processes, the link between them, and a load: one cell after the other."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from hybridge.shared.bundle import Bundle
from hybridge.shared.security import Address

from .arrivals import Arrivals
from .board import OTHERS, Throttling, board, cpu_s
from .namespaces import CLOUD_HOST, Namespaces, two_namespaces
from .pairs import Pair
from .records import Cell, Measured, Record, read_records
from .workers import START_S, Worker, script

CLOUD = Address(CLOUD_HOST, 8500)
_PATIENCE_S = 30.0
_AMPLE_MS = 2_000.0
_IN_FLIGHT = 4
LEAST_BUDGET_MS = 20.0
_BUDGET_TIMES_P99 = 1.5


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all cells. `share` is of one core, for the edge.

    `settle_s` is from a link's beginning to the first request: for connecting anew, and for looking
    at the link.
    """

    folder: Path
    share: float = 0.25
    traces: Path | None = None
    congestion_control: str = ""
    trust: tuple[Path, ...] = ()
    arrivals: Arrivals = Arrivals.POISSON
    settle_s: float = 4.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """The device alone, through the agent, decoding included.

    `p50_ms` and `p99_ms` are of one request after the other, `loaded_p99_ms` of an open loop at
    half of `capacity_hz`, which is what a few clients get that never wait. `cpu_share` is what the
    edge had of one core meanwhile.
    """

    p50_ms: float
    p99_ms: float
    loaded_p99_ms: float
    capacity_hz: float
    cpu_share: float

    @property
    def rate_hz(self) -> float:
        """Half of what the device can do alone."""
        return round(self.capacity_hz / 2, 2)

    @property
    def least_budget_ms(self) -> float:
        """The shortest budget that is asked for."""
        p99_ms = max(self.p99_ms, self.loaded_p99_ms)  # of few requests, each is rough
        return max(LEAST_BUDGET_MS, float(np.ceil(_BUDGET_TIMES_P99 * p99_ms)))

    def budgets_ms(self, count: int, *, most_ms: float = 2_000.0) -> list[float]:
        """From the shortest to two seconds, evenly in their ratio."""
        spread = np.geomspace(self.least_budget_ms, most_ms, count)
        return [float(round(each)) for each in spread]


class Laboratory:
    """One pair in its laboratory; everything is started once, and gone when the block ends."""

    def __init__(self, pair: Pair, setting: Setting) -> None:
        self.pair = pair
        self.setting = setting
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def calibrate(self, *, requests: int = 300) -> Calibration:
        """Measures the device alone."""
        self.edge.ask({"do": "alone"})
        self._closed(requests // 10, in_flight=1)
        one = _round_trips_ms(self._closed(requests, in_flight=1))
        used_s, began_s = self._edge_cpu_s(), time.monotonic()
        several = self._closed(requests, in_flight=_IN_FLIGHT)
        cpu_share = (self._edge_cpu_s() - used_s) / (time.monotonic() - began_s)
        took_s = max(r.answered_s for r in several) - min(r.sent_s for r in several)
        capacity_hz = len(several) / took_s
        loaded = _round_trips_ms(self._open(requests, rate_hz=capacity_hz / 2))
        self.edge.ask({"do": "reset"})
        p50_ms, p99_ms = np.quantile(one, [0.5, 0.99])
        loaded_p99_ms = float(np.quantile(loaded, 0.99))
        return Calibration(
            p50_ms=float(p50_ms),
            p99_ms=float(p99_ms),
            loaded_p99_ms=loaded_p99_ms,
            capacity_hz=capacity_hz,
            cpu_share=cpu_share,
        )

    def measure(self, cell: Cell) -> Measured:
        """One cell: the link from its offset, an agent that knows nothing, then the requests."""
        settle_s = self.setting.settle_s
        link = {"do": "link", "name": cell.link, "seed": cell.seed, "offset_s": cell.offset_s}
        began_s = float(self.emulator.ask(link)["at_s"])
        order = {"do": "policy", "name": cell.policy, "within_s": 0.75 * settle_s}
        reached = self.edge.ask(order, within_s=_PATIENCE_S)["reachable"]
        before, used_s = self.board.throttling(), self._edge_cpu_s()
        records = self._open(
            cell.requests,
            rate_hz=cell.rate_hz,
            budget_ms=cell.budget_ms,
            seed=cell.seed,
            start_s=began_s + settle_s,
        )
        wall_s = max(r.answered_s for r in records) - min(r.scheduled_s for r in records)
        return Measured(
            cell,
            records,
            {
                "reachable_at_start": reached,
                "edge_cpu_share": (self._edge_cpu_s() - used_s) / wall_s,
                "edge_throttled": _throttled(before, self.board.throttling()),
                "link": self.emulator.ask({"do": "statistics"}),
                "estimate": self.edge.ask({"do": "link"})["link"],
                "congestion_control": self.namespaces.congestion_control(),
                "latest_sent_ms": max((r.sent_s - r.scheduled_s) * 1e3 for r in records),
                "load_average": os.getloadavg()[0],
            },
        )

    def restart_cloud(self) -> None:
        """A new cloud process in the place of one that has ended; it loads tails when asked."""
        self._start_cloud(preload=False)

    def kill_cloud(self) -> None:
        """Ends the cloud's process at once, as a power cut would."""
        self._clouds.ask({"do": "kill"})

    def begin(self, requests: int, *, rate_hz: float, budget_ms: float, seed: int) -> float:
        """Lets evenly spaced requests begin now, and says when.

        `records` collects their first answers, `finals` counts the final ones.
        """
        start_s = time.monotonic()
        self._begin(
            "open", requests, rate_hz=rate_hz, budget_ms=budget_ms, seed=seed, start_s=start_s,
            arrivals=str(Arrivals.EVEN), follow=True,
        )  # fmt: skip
        return start_s

    def finals(self, *, within_s: float) -> dict[str, int]:
        """How many final answers the client was handed, by request, when all due have come."""
        counted: dict[str, int] = self.load.ask({"do": "finals"}, within_s=within_s)["finals"]
        return counted

    def records(self, *, within_s: float) -> list[Record]:
        """The records of the requests that were begun, when all have ended."""
        self.load.hear(within_s=within_s)
        return read_records(self._out)

    def _start(self, stack: ExitStack) -> None:
        setting = self.setting
        setting.folder.mkdir(parents=True, exist_ok=True)
        self.board = stack.enter_context(board(setting.share))
        self.namespaces: Namespaces = stack.enter_context(
            two_namespaces(congestion_control=setting.congestion_control)
        )
        self._bundles = setting.folder / f"bundles-{setting.share:g}"
        bundle = copy_bundle(self.pair.bundle, self._bundles)
        edge_side, cloud_side = self.namespaces.edge, self.namespaces.cloud
        traces = ["--traces", str(setting.traces)] if setting.traces else []
        emulator = [*script("emulator"), edge_side.name, cloud_side.name, *traces]
        self.emulator = stack.enter_context(self._worker("emulator", emulator))
        self._clouds = stack.enter_context(self._worker("cloud", self._cloud_command()))
        self._start_cloud(preload=True)
        edge = [*script("edge_process"), str(bundle), str(CLOUD), *self._trusted()]
        edge = self.board.command(edge_side.command(edge))  # inside, no cgroups are to be seen
        self.edge = stack.enter_context(self._worker("edge", edge))
        self.edge.ask({"do": "reachable", "within_s": START_S}, within_s=START_S + 1)
        address, model = self.edge.started["address"], self.pair.bundle.manifest.name
        load = [*script("load"), address, model, *map(str, self.pair.pictures)]
        self.load = stack.enter_context(self._worker("load", edge_side.command(load)))

    def _cloud_command(self) -> list[str]:
        arguments = ["--bundles", str(self._bundles), "--listen", str(CLOUD), "--insecure"]
        cores = ["taskset", "-c", ",".join(map(str, OTHERS))]
        cloud = [*script("cloud_process"), *arguments, *self._trusted()]
        return self.namespaces.cloud.command([*cores, *cloud])

    def _start_cloud(self, *, preload: bool) -> None:
        order = {"do": "start", "more": ["--preload"] if preload else []}
        self._clouds.ask(order, within_s=START_S)

    def _worker(self, name: str, command: Sequence[str]) -> Worker:
        return Worker(name, command, log=self.setting.folder / f"{name}.log")

    def _trusted(self) -> list[str]:
        return [word for file in self.setting.trust for word in ("--trust", str(file))]

    def _edge_cpu_s(self) -> float:
        return cpu_s(self.edge.pid)

    @property
    def _out(self) -> Path:
        return self.setting.folder / "records.jsonl"

    def _begin(self, kind: str, requests: int, **order: Any) -> None:
        self.load.tell({"do": kind, "requests": requests, "out": str(self._out), **order})

    def _closed(self, requests: int, *, in_flight: int) -> list[Record]:
        self._begin("closed", requests, in_flight=in_flight, budget_ms=_AMPLE_MS)
        return self.records(within_s=requests * _AMPLE_MS / 1e3 + _PATIENCE_S)

    def _open(
        self,
        requests: int,
        *,
        rate_hz: float,
        budget_ms: float = _AMPLE_MS,
        seed: int = 0,
        start_s: float | None = None,
    ) -> list[Record]:
        self._begin(
            "open", requests, rate_hz=rate_hz, budget_ms=budget_ms, seed=seed,
            start_s=time.monotonic() if start_s is None else start_s,
            arrivals=str(self.setting.arrivals),
        )  # fmt: skip
        return self.records(within_s=2 * requests / rate_hz + budget_ms / 1e3 + _PATIENCE_S)


def copy_bundle(bundle: Bundle, root: Path) -> Path:
    """A copy without the profiles that other machines measured, or the one that is there already.

    The edge of the laboratory is a machine of its own: it measures itself at its first start.
    """
    target = root / bundle.manifest.name / bundle.manifest.version
    manifest = target / "manifest.json"
    if manifest.exists() and manifest.read_bytes() == (bundle.path / "manifest.json").read_bytes():
        return target
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(bundle.path, target, ignore=shutil.ignore_patterns("profiles"))
    return target


def _round_trips_ms(records: Sequence[Record]) -> list[float]:
    return [record.round_trip_ms for record in records]


def _throttled(before: Throttling, after: Throttling) -> float:
    """The share of periods in which the quota was used up."""
    periods = after.periods - before.periods
    return (after.throttled - before.throttled) / periods if periods else 0.0
