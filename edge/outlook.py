"""From what was measured to what a request may expect: the router's options. Pure."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from ..devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, encode_stage, head_stage
from ..shared.codec.picture import PictureFormat, format_of
from ..shared.manifest import Manifest, PlanRow, Precision, Rate
from ..shared.plan import Plan, PlanKind
from ..shared.privacy import Privacy
from .best_first import BestFirst
from .duration import NO_TIME, Duration
from .prices import Prices
from .rate import MOST_LOAD, crowd_ms
from .router import Option, Part

DeviceForecast = Callable[[tuple[str, ...]], Duration]
"""How long stages of the device take one after the other, by their names."""
TransferForecast = Callable[[int, int], Duration]
"""How long it takes to send bytes and hear back, by the median of their number and its p95."""
LeastTransfer = Callable[[int], float]
"""How long, in ms, it takes at least, by the median of the number of bytes."""
CloudForecast = Callable[[str], Duration]
"""How long the cloud takes with waiting and computing, by contract id."""
CloudPrecision = Callable[[str], Precision]
"""What the cloud computes in, by contract id."""

Formats = frozenset[PictureFormat]
ALL_FORMATS = frozenset(PictureFormat)

_MOST_TABLES = 16
"""Kept, of orders of the rows: behind a balancer each cloud may compute in another precision."""
_STEADY = 0.5
"""Of the wait behind others, where each takes as long as the next (M/D/1 instead of M/M/1)."""
_ROUNDED = 1.0 - 1e-9
"""Added up in another order a sum may be less in its last digits."""


def in_float32(contract: str) -> Precision:
    """A cloud that says nothing of its precision, and what it is taken for."""
    return Precision.FLOAT32


def _nothing(stage: str) -> float:
    return 0.0


def _no_time(size_bytes: int) -> float:
    return 0.0


class _Row(NamedTuple):
    """A row of the table, read once. Energy is what sending takes, money what the network does."""

    plan: Plan
    stages: tuple[str, ...]
    alone_ms: float
    contract: str
    agreement: Rate
    bytes_p50: int
    bytes_p95: int
    energy_j: float
    money: float
    similarity: float | None
    parts: tuple[tuple[int, float, int, int], ...] = ()
    """Those that are worth an answer: layers, agreement, bytes."""


class _Table(NamedTuple):
    """The rows, the best first, and how often each agrees."""

    rows: list[_Row]
    agreements: list[Rate]


class Waits(NamedTuple):
    """How long the light model, and the device's part of a remote plan, have to wait first.

    `busy` is the share of the processor's time that goes to decoding and to the light model,
    `remote_hz` how many remote plans are begun in a second, each with `overhead_ms` beside its
    stages. A plan is judged by what becomes of the processor when all of these take it. Where there
    is `room` for so much only, fewer take it, or if it is `for_all`, none. The wait is one among
    requests that come by chance; `waited` is how much of it there was lately: less where they come
    by the clock.
    """

    light: Duration = NO_TIME
    remote: Duration = NO_TIME
    busy: float = 0.0
    remote_hz: float = 0.0
    overhead_ms: float = 0.0
    room: float = MOST_LOAD
    for_all: bool = False
    waited: float = 1.0

    def among_others_ms(self, alone_ms: float) -> float:
        """How long a remote plan that takes so long alone takes among others like itself."""
        whole_ms = alone_ms + self.overhead_ms
        load = self.busy + self.remote_hz * whole_ms / 1e3
        if load > self.room:
            if self.for_all:
                return math.inf
            load = self.room
        return alone_ms + _STEADY * crowd_ms(whole_ms, load=load, waited=self.waited)


NO_WAITS = Waits()


class Outlook:
    """A bundle's table, ready to be turned into options again with every request.

    `alone` is how long a stage takes, in ms, when nothing else runs.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        prices: Prices | None = None,
        alone: Callable[[str], float] = _nothing,
        privacy: Privacy | None = None,
    ) -> None:
        self._prices = prices or Prices()
        self._table = manifest.table
        self._rows = [_read(row, manifest, self._prices, alone, privacy) for row in manifest.table]
        self._formats = [format_of(row.plan.codec) for row in self._rows]
        self._alone = max(r.agreement.value for r in self._rows if not r.contract)
        self.most_work_ms = max(row.alone_ms for row in self._rows)
        """Of the plan that takes the most."""
        self._contracts = tuple(dict.fromkeys(row.contract for row in self._rows if row.contract))
        self._ordered: dict[tuple[Formats, tuple[Precision, ...]], _Table] = {}

    def options(
        self,
        *,
        device: DeviceForecast,
        transfer: TransferForecast,
        cloud: CloudForecast,
        transfer_ms: LeastTransfer = _no_time,
        precision: CloudPrecision = in_float32,
        formats: Formats = ALL_FORMATS,
        waits: Waits = NO_WAITS,
        margin_ms: float = 0.0,
    ) -> BestFirst[Option]:
        """One option per row: the device's own, then the others, those that agree most first.

        Each is worked out when it is looked at. `formats` are those that device and cloud have:
        there is no option of another. `margin_ms` is by how much sooner than needed a cloud answers
        from what has come.
        """
        precisions = tuple(map(precision, self._contracts))
        table = self._ordered.get((formats, precisions))
        if table is None:
            if len(self._ordered) >= _MOST_TABLES:
                self._ordered.clear()
            table = self._ordered[formats, precisions] = self._order(formats, precisions)
        return self._options(table, device, transfer, transfer_ms, cloud, waits, margin_ms)

    def _order(self, formats: Formats, precisions: tuple[Precision, ...]) -> _Table:
        """The rows of these formats with a cloud that computes in these, by contract."""
        computed_in = dict(zip(self._contracts, precisions, strict=True))
        rows = [
            self._computed_in(computed_in[row.contract], row, of_table) if row.contract else row
            for row, of_table, own in zip(self._rows, self._table, self._formats, strict=True)
            if own is None or own in formats
        ]
        rows.sort(key=lambda row: (row.contract != "", -row.agreement.value))
        return _Table(rows, [row.agreement for row in rows])

    def _computed_in(self, precision: Precision, row: _Row, of_table: PlanRow) -> _Row:
        """A row with what it gives in a precision, and the parts that are worth an answer.

        A part that was measured to agree more often than a longer one is taken to agree as often;
        those that agree no more often than the device's own are left out.
        """
        variant = of_table.variants.get(precision)
        agreement = variant.agreement if variant else row.agreement
        most, parts = agreement.value, []
        for prefix in reversed(of_table.prefixes):
            most = min(most, prefix.rate(precision).value)
            if most > self._alone:
                parts.append((prefix.layers, most, prefix.bytes_p50, prefix.bytes_p95))
        return row._replace(agreement=agreement, parts=tuple(reversed(parts)))

    def _options(
        self,
        table: _Table,
        device: DeviceForecast,
        transfer: TransferForecast,
        transfer_ms: LeastTransfer,
        cloud: CloudForecast,
        waits: Waits,
        margin_ms: float,
    ) -> BestFirst[Option]:
        rows = table.rows
        owns: dict[int, tuple[float, float, float]] = {}
        clouds: dict[str, Duration] = {}
        joules_per_ms = self._prices.device_w / 1e3
        money_per_ms = self._prices.per_cloud_hour / 3.6e6
        wait_ms, wait_variance = waits.remote.mean_ms, waits.remote.variance
        crowded, overhead_ms = waits.remote_hz > 0.0, waits.overhead_ms

        def of_device(row: _Row) -> tuple[float, float, float]:
            """Until a row's frame is ready, its variance, and how long its stages alone take."""
            own = device(row.stages)
            own_ms = own.mean_ms
            if crowded and (among_ms := waits.among_others_ms(row.alone_ms)) > own_ms:
                return among_ms + wait_ms, own.variance, own_ms
            return own_ms + wait_ms, own.variance, own_ms

        def of_cloud(contract: str) -> Duration:
            computing = clouds.get(contract)
            if computing is None:
                computing = clouds[contract] = cloud(contract)
            return computing

        def soonest_ms(at: int) -> float:
            row = rows[at]
            if not row.contract:
                return 0.0
            own = owns[at] = of_device(row)
            ms = own[0] + transfer_ms(row.bytes_p50) + of_cloud(row.contract).mean_ms
            return _ROUNDED * ms

        def option(at: int) -> Option:
            row = rows[at]
            plan, stages, alone_ms, contract, agreement, p50, p95, energy_j, money, alike, of = row
            if not contract:
                ready = waits.light.then(own := device(stages))
                energy_j += joules_per_ms * own.mean_ms
                return Option(
                    plan,
                    agreement,
                    0,
                    ready.mean_ms,
                    0.0,
                    0.0,
                    ready.variance,
                    energy_j,
                    work_ms=alone_ms,
                )
            device_ms, variance, own_ms = owns.get(at) or of_device(row)
            network, computing = transfer(p50, p95), of_cloud(contract)
            cloud_ms = computing.mean_ms
            variance += wait_variance + computing.variance
            parts: tuple[Part, ...] = ()
            if of:
                least_ms = device_ms + cloud_ms + margin_ms
                parts = tuple(
                    Part(layers, value, transfer(*sizes).then(Duration(least_ms, variance)))
                    for layers, value, *sizes in of
                )
            return Option(
                plan,
                agreement,
                p95,
                device_ms,
                network.mean_ms,
                cloud_ms,
                variance + network.variance,
                energy_j + joules_per_ms * own_ms,
                money + money_per_ms * cloud_ms,
                alone_ms + overhead_ms,
                alike,
                parts,
            )

        return BestFirst(option, agreements=table.agreements, soonest_ms=soonest_ms)


@cache
def device_stages(plan: Plan) -> tuple[str, ...]:
    """The stages a plan runs on the device, in order."""
    match plan.kind:
        case PlanKind.LOCAL:
            return (RESIZE_LIGHT, LIGHT)
        case PlanKind.CLOUD:
            return (RESIZE_LARGE, encode_stage(plan))
        case PlanKind.SPLIT:
            return (RESIZE_LARGE, head_stage(plan.cut, plan.head), encode_stage(plan))


def _read(
    row: PlanRow,
    manifest: Manifest,
    prices: Prices,
    alone: Callable[[str], float],
    privacy: Privacy | None,
) -> _Row:
    plan = row.parsed()
    stages = device_stages(plan)
    split = plan.kind is PlanKind.SPLIT
    return _Row(
        plan=plan,
        stages=stages,
        alone_ms=sum(map(alone, stages)),
        contract="" if plan.kind is PlanKind.LOCAL else manifest.contract(plan).id,
        agreement=row.agreement,
        bytes_p50=row.bytes_p50,
        bytes_p95=row.bytes_p95,
        energy_j=prices.energy_j(device_ms=0.0, size_bytes=row.bytes_p95),
        money=prices.money(size_bytes=row.bytes_p95, cloud_ms=0.0),
        similarity=privacy.alike(plan, manifest) if privacy and split else None,
    )
