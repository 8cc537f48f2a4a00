"""What the page's script works with: per plan and machine, the router's own figures."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from ...devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT
from ...shared.plan import Plan, PlanKind
from .facts import Inspection
from .machines import Link, Machine, cloud_ms, cloud_of, device_ms, layers_of, parts_ms
from .tables import front_plans

_KINDS = {RESIZE_LIGHT: "resize", RESIZE_LARGE: "resize", LIGHT: "light"}


def page_data(
    report: Inspection,
    *,
    machine: Machine | None,
    link: Link,
    budget_ms: float,
    cloud_speed: float,
    links: Mapping[str, Link],
    colours: Mapping[str, str],
) -> dict[str, Any]:
    """Plans in the order of the table on the page; times in the same order; null is never."""
    cloud = cloud_of(report.machines)
    return {
        "plans": plans_data(report, colours),
        "machines": [_machine(report, each) for each in report.machines],
        "clouds": [
            {"key": each.key, "name": each.name, "ms": cloud_times(report, each)}
            for each in report.machines
            if each.has_cloud_part
        ],
        "links": [
            {"name": name, "rtt_ms": each.rtt_ms, "mbps": each.mbps} for name, each in links.items()
        ],
        "start": {
            "machine": machine.key if machine else None,
            "cloud": cloud.key if cloud else None,
            "rtt_ms": link.rtt_ms,
            "mbps": link.mbps,
            "budget_ms": budget_ms,
            "cloud_speed": cloud_speed,
        },
    }


def plans_data(report: Inspection, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the rule needs to know of each plan, beside times."""
    order = sorted(each.plan for each in report.plans)
    layers = layers_of(report.bundle.manifest)
    return [
        {
            "plan": each.row.plan,
            "code": each.code,
            "local": each.plan.kind is PlanKind.LOCAL,
            "agreement": each.row.agreement.value,
            "error": each.row.agreement.standard_error,
            "bytes": each.row.bytes_p95,
            "layers": layers[each.row.plan],
            "rank": order.index(each.plan),
            "colour": colours.get(each.row.plan, ""),
        }
        for each in report.plans
    ]


def device_times(report: Inspection, machine: Machine) -> list[float | None]:
    """The device's part of each plan, as the router adds it up."""
    return _in_order(report, device_ms(report.bundle.manifest, machine))


def cloud_times(report: Inspection, machine: Machine) -> list[float | None]:
    """The cloud's part of each plan; 0 for the device alone."""
    manifest = report.bundle.manifest
    tails = cloud_ms(manifest, machine)

    def time(plan: Plan) -> float | None:
        if plan.kind is PlanKind.LOCAL:
            return 0.0
        return _finite(tails[manifest.contract(plan).id])

    return [time(each.plan) for each in report.plans]


def _machine(report: Inspection, machine: Machine) -> dict[str, Any]:
    front = front_plans(report, machine)
    parts = dict(
        zip(
            (row.plan for row in report.bundle.manifest.table),
            parts_ms(report.bundle.manifest, machine),
            strict=True,
        )
    )
    return {
        "key": machine.key,
        "name": machine.name,
        "times": machine.origin,
        "device_ms": device_times(report, machine),
        "parts": [
            [[_kind(stage), _finite(ms)] for stage, ms in parts[each.row.plan]]
            for each in report.plans
        ],
        "front": [each.row.plan in front for each in report.plans],
        "heads": {
            f"{cut.name}/{head}": _finite(report.head_ms(machine, cut, head))
            for cut in report.kept_cuts
            for head in cut.heads
        },
    }


def _kind(stage: str) -> str:
    return _KINDS.get(stage, stage.partition(":")[0])


def _in_order(report: Inspection, by_row: list[float]) -> list[float | None]:
    found = dict(zip((row.plan for row in report.bundle.manifest.table), by_row, strict=True))
    return [_finite(found[each.row.plan]) for each in report.plans]


def _finite(ms: float) -> float | None:
    return ms if isfinite(ms) else None
