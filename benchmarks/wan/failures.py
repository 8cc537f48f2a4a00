"""Clouds killed and links cut while requests are under way: what is lost, shown twice, or late.

A cycle: the cloud is in reach, a few requests come, and at a random instant within one of them the
cloud process is killed (SIGKILL) or the link loses everything. When all requests have ended, a new
cloud is started or the link restored, and the next cycle begins once the edge has found it. A
failure that came when no request was under way is kept, and one more is made. Every cycle is a line
of a file, so that a run can be taken up where it ended.
"""

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Self

from hybridge.shared.errors import RemoteUnavailable

from .arrivals import Arrivals, arrival_times_s
from .laboratory import Laboratory
from .records import Record

_REQUESTS = 4
_PATIENCE_S = 120.0
_LEARNING, _LESSONS = 12, 3
_MISSES = 10
_LESS = 0.6
"""What a guess that met no request is corrected by."""


class Failure(StrEnum):
    """What fails."""

    CLOUD_KILL = "cloud-kill"
    LINK_CUT = "link-cut"


@dataclass(frozen=True, slots=True)
class Cycle:
    """One failure, the instant it happened, and the requests around it.

    `strays` are final answers to requests of earlier cycles, which had theirs.
    """

    seed: int
    failed_s: float
    records: tuple[Record, ...]
    strays: int = 0

    @property
    def in_flight(self) -> int:
        """How many requests were under way at that instant."""
        return sum(record.sent_s <= self.failed_s < record.answered_s for record in self.records)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All cycles of a kind. `hit`: in how many a request under way was answered by the device.

    Lost is a request without an answer, or without the final one that was promised; shown twice is
    one with a final answer too many.
    """

    failures: int
    in_mid_request: int
    hit: int
    requests: int
    followed: int
    lost: int
    shown_twice: int
    late: int

    @classmethod
    def of(cls, cycles: Sequence[Cycle]) -> Self:
        records = [record for cycle in cycles for record in cycle.records]
        return cls(
            failures=len(cycles),
            in_mid_request=_in_mid_request(cycles),
            hit=sum(any(record.fallback for record in cycle.records) for cycle in cycles),
            requests=len(records),
            followed=sum(record.promised for record in records),
            lost=sum(not each.answered or each.finals < each.promised for each in records),
            shown_twice=sum(each.finals > each.promised for each in records)
            + sum(cycle.strays for cycle in cycles),
            late=sum(record.answered and not record.in_budget for record in records),
        )


def read_cycles(file: Path) -> list[Cycle]:
    """What earlier runs left."""
    if not file.exists():
        return []
    held = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        Cycle(**{**each, "records": tuple(Record(**record) for record in each["records"])})
        for each in held
    ]


class Saboteur:
    """Makes failures of one kind in a laboratory, over a link on which answers take their time."""

    def __init__(
        self,
        laboratory: Laboratory,
        failure: Failure,
        *,
        policy: str,
        link: str,
        budget_ms: float,
        rate_hz: float,
    ) -> None:
        self._laboratory = laboratory
        self._failure = failure
        self._policy = policy
        self._link = link
        self._budget_ms = budget_ms
        self._rate_hz = rate_hz

    def prepare(self) -> None:
        """Puts the link in, and learns how long an answer from the cloud usually takes over it."""
        laboratory = self._laboratory
        laboratory.emulator.ask({"do": "link", "name": self._link})
        laboratory.edge.ask({"do": "policy", "name": self._policy})
        self._reached()
        self._usual_ms = self._learn()

    def cycle(self, seed: int) -> Cycle:
        """One failure in mid-request, and everything made whole again."""
        chance = random.Random(f"failure/{seed}")
        times_s = arrival_times_s(_REQUESTS, rate_hz=self._rate_hz, seed=seed, kind=Arrivals.EVEN)
        within_s = chance.uniform(0.1, 0.9) * self._usual_ms / 1e3
        began_s = self._laboratory.begin(
            _REQUESTS, rate_hz=self._rate_hz, budget_ms=self._budget_ms, seed=seed
        )
        at_s = began_s + chance.choice(times_s) + within_s
        time.sleep(max(0.0, at_s - time.monotonic()))  # until the instant of the failure
        failed_s = self._fail()
        records = self._laboratory.records(within_s=_PATIENCE_S)
        self._mend()
        self._reached()
        finals = self._laboratory.finals(within_s=_PATIENCE_S)
        counted = [replace(each, finals=finals.pop(each.request_id, 0)) for each in records]
        cycle = Cycle(seed, failed_s, tuple(counted), strays=sum(finals.values()))
        if not cycle.in_flight:  # answers come sooner than they did, or requests later
            too_late = any(record.answered_s <= failed_s for record in records)
            self._usual_ms *= _LESS if too_late else 1 / _LESS
        return cycle

    def _learn(self) -> float:
        """How long an answer from the cloud usually takes here."""
        for seed in range(_LESSONS):  # on a machine that is busy just now all may come late
            self._laboratory.begin(
                _LEARNING, rate_hz=self._rate_hz, budget_ms=self._budget_ms, seed=seed
            )
            records = self._laboratory.records(within_s=_PATIENCE_S)
            self._laboratory.finals(within_s=_PATIENCE_S)  # they belong to no cycle
            remote = [record.round_trip_ms for record in records if record.plan != "local"]
            if remote:
                return median(remote)
        raise RemoteUnavailable(f"over {self._link} the edge asks no cloud: nothing to sabotage")

    def _fail(self) -> float:
        if self._failure is Failure.LINK_CUT:
            return float(self._laboratory.emulator.ask({"do": "cut"})["at_s"])
        failed_s = time.monotonic()
        self._laboratory.kill_cloud()
        return failed_s

    def _mend(self) -> None:
        if self._failure is Failure.LINK_CUT:
            self._laboratory.emulator.ask({"do": "restore"})
        else:
            self._laboratory.restart_cloud()

    def _reached(self) -> None:
        order = {"do": "reachable", "within_s": _PATIENCE_S}
        if not self._laboratory.edge.ask(order, within_s=_PATIENCE_S + 1)["reachable"]:
            raise RemoteUnavailable(f"the edge did not find its cloud in {_PATIENCE_S:g} s")


def sabotage(
    laboratory: Callable[[], Laboratory],
    failure: Failure,
    *,
    count: int,
    policy: str,
    budget_ms: float,
    rate_hz: float,
    file: Path,
    link: str = "lte",
) -> Outcome:
    """As many failures in mid-request as are missing in the file, and what all came to.

    The laboratory is only asked for if there are any. `policy` must be one that asks the cloud.
    RemoteUnavailable after ten failures in a row that met no request.
    """
    cycles = read_cycles(file)
    if _in_mid_request(cycles) < count:
        saboteur = Saboteur(
            laboratory(), failure, policy=policy, link=link, budget_ms=budget_ms, rate_hz=rate_hz
        )
        saboteur.prepare()
        with file.open("a") as lines:
            while _in_mid_request(cycles) < count:
                cycles.append(saboteur.cycle(len(cycles)))
                lines.write(json.dumps(asdict(cycles[-1])) + "\n")
                lines.flush()
                if len(cycles) >= _MISSES and not _in_mid_request(cycles[-_MISSES:]):
                    raise RemoteUnavailable(f"{_MISSES} failures in a row met no request")
    return Outcome.of(cycles)


def _in_mid_request(cycles: Sequence[Cycle]) -> int:
    return sum(cycle.in_flight > 0 for cycle in cycles)
