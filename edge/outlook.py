"""From what was measured to what a request may expect: the router's options. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, encode_stage, head_stage
from ..shared.manifest import Manifest, PlanRow, Precision
from ..shared.plan import Plan, PlanKind
from .duration import NEVER, NO_TIME, Duration
from .prices import Prices
from .rate import crowd_ms
from .router import Option

StageForecast = Callable[[str], Duration]
"""How long a device stage takes, by its name."""
TransferForecast = Callable[[int, int], Duration]
"""How long it takes to send bytes and hear back, by the median of their number and its p95."""
CloudForecast = Callable[[str], Duration]
"""How long the cloud takes with waiting and computing, by contract id."""
CloudPrecision = Callable[[str], Precision]
"""What the cloud computes in, by contract id."""


_STEADY = 0.5
"""Of the wait behind others, where each takes as long as the next (M/D/1 instead of M/M/1)."""


def in_float32(contract: str) -> Precision:
    """A cloud that says nothing of its precision, and what it is taken for."""
    return Precision.FLOAT32


def _nothing(stage: str) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table, read once."""

    row: PlanRow
    plan: Plan
    stages: Sequence[str]
    contract: str
    local: bool


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the light model, and the device's part of a remote plan, have to wait first.

    `busy` is the share of the processor's time that goes to what every request needs, `remote_hz`
    how many remote plans are begun in a second, each with `overhead_ms` beside its stages. A plan
    is judged by what becomes of the processor when all of these take it, and by `used`, the share
    that is used as it is.
    """

    light: Duration = NO_TIME
    remote: Duration = NO_TIME
    busy: float = 0.0
    remote_hz: float = 0.0
    overhead_ms: float = 0.0
    used: float = 0.0


NO_WAITS = Waits()


class Outlook:
    """A bundle's table, ready to be turned into options again with every request."""

    def __init__(self, manifest: Manifest, *, prices: Prices | None = None) -> None:
        self._prices = prices or Prices()
        self._rows = [_read(row, manifest) for row in manifest.table]
        self._stages = tuple(dict.fromkeys(each for row in self._rows for each in row.stages))
        self._contracts = tuple(dict.fromkeys(row.contract for row in self._rows if row.contract))

    def options(
        self,
        *,
        stage: StageForecast,
        alone: Callable[[str], float] = _nothing,
        transfer: TransferForecast,
        cloud: CloudForecast,
        precision: CloudPrecision = in_float32,
        reachable: bool = True,
        waits: Waits = NO_WAITS,
    ) -> list[Option]:
        """One option per row; remote ones never finish if nothing is reachable.

        `alone` is how long a stage takes, in ms, when nothing else runs.
        """
        stages = {name: stage(name) for name in self._stages}
        clouds = {contract: (cloud(contract), precision(contract)) for contract in self._contracts}
        prices = self._prices
        options: list[Option] = []
        for row in self._rows:
            own_ms = variance = 0.0
            for each in row.stages:
                took = stages[each]
                own_ms += took.mean_ms
                variance += took.variance
            size_bytes = row.row.bytes_p95
            energy_j = prices.energy_j(device_ms=own_ms, size_bytes=size_bytes)
            wait = waits.light if row.local else waits.remote
            device_ms = own_ms + wait.mean_ms
            variance += wait.variance
            if not row.local and waits.remote_hz:
                alone_ms = sum([alone(each) for each in row.stages]) + waits.overhead_ms
                load = max(waits.busy + waits.remote_hz * alone_ms / 1e3, waits.used)
                device_ms += _STEADY * crowd_ms(alone_ms, load=load)
            if row.local:
                options.append(
                    Option(row.plan, row.row.agreement, 0, device_ms, 0.0, 0.0, variance, energy_j)
                )
                continue
            network = transfer(row.row.bytes_p50, size_bytes) if reachable else NEVER
            computing, computed_in = clouds[row.contract]
            options.append(
                Option(
                    plan=row.plan,
                    agreement=row.row.rates(computed_in).agreement,
                    size_bytes=size_bytes,
                    device_ms=device_ms,
                    network_ms=network.mean_ms,
                    cloud_ms=computing.mean_ms,
                    variance=variance + network.variance + computing.variance,
                    energy_j=energy_j,
                    cost=prices.money(size_bytes=size_bytes, cloud_ms=computing.mean_ms),
                )
            )
        return options


def device_stages(plan: Plan) -> Sequence[str]:
    """The stages a plan runs on the device, in order."""
    match plan.kind:
        case PlanKind.LOCAL:
            return (RESIZE_LIGHT, LIGHT)
        case PlanKind.CLOUD:
            return (RESIZE_LARGE, encode_stage(plan))
        case PlanKind.SPLIT:
            return (RESIZE_LARGE, head_stage(plan.cut, plan.head), encode_stage(plan))


def _read(row: PlanRow, manifest: Manifest) -> _Row:
    plan = row.parsed()
    contract = "" if plan.kind is PlanKind.LOCAL else manifest.contract(plan).id
    return _Row(row, plan, device_stages(plan), contract, local=not contract)
