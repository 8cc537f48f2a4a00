"""From what was measured to what a request may expect: the router's options. Pure."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from ..devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, encode_stage, head_stage
from ..shared.manifest import Manifest, Precision
from ..shared.plan import Plan, PlanKind
from .router import Option

StageForecast = Callable[[str], float]
"""An upper quantile, in ms, of a device stage's time."""
TransferForecast = Callable[[int], float]
"""An upper quantile, in ms, of the time to send so many bytes and hear back."""
CloudForecast = Callable[[str], float]
"""An upper quantile, in ms, of waiting and computing in the cloud, by contract id."""
CloudPrecision = Callable[[str], Precision]
"""What the cloud computes in, by contract id."""


def in_float32(contract: str) -> Precision:
    """A cloud that says nothing of its precision, and what it is taken for."""
    return Precision.FLOAT32


def outlook(
    manifest: Manifest,
    *,
    stage_ms: StageForecast,
    transfer_ms: TransferForecast,
    cloud_ms: CloudForecast,
    cloud_precision: CloudPrecision = in_float32,
    reachable: bool = True,
) -> list[Option]:
    """One option per row of the table; remote ones never finish if nothing is reachable."""
    stage_ms = cache(stage_ms)  # many plans share a stage, and a cut
    cut_ms: dict[str, float] = {}
    precision: dict[str, Precision] = {}
    options: list[Option] = []
    for row in manifest.table:
        plan, stages = _parsed(row.plan)
        local = plan.kind is PlanKind.LOCAL
        if not local and plan.cut not in cut_ms:
            contract = manifest.contract(plan).id
            cut_ms[plan.cut] = cloud_ms(contract)
            precision[plan.cut] = cloud_precision(contract)
        options.append(
            Option(
                plan=plan,
                agreement=row.agreement if local else row.rates(precision[plan.cut]).agreement,
                size_bytes=row.bytes_p95,
                device_ms=sum([stage_ms(stage) for stage in stages]),
                network_ms=_when(reachable, transfer_ms, row.bytes_p95) if not local else 0.0,
                cloud_ms=cut_ms[plan.cut] if not local else 0.0,
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


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[Plan, Sequence[str]]:
    """A table's rows are asked for again with every request."""
    plan = Plan.parse(text)
    return plan, device_stages(plan)


def _when(reachable: bool, transfer_ms: TransferForecast, size_bytes: int) -> float:
    return transfer_ms(size_bytes) if reachable else float("inf")
