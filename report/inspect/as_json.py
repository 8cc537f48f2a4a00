"""An inspection for programs: everything, as JSON knows it."""

from math import isfinite
from typing import Any

import msgspec

from .facts import CutFacts, Inspection, PlanFacts
from .guarantee import guarantee_json
from .machines import Link, Machine, cloud_of, device_ms, options_on
from .tables import front_plans
from .whatif import Answer, decided, ladder, verdict


def as_json(
    report: Inspection,
    *,
    machine: Machine | None,
    link: Link,
    budget_ms: float,
    cloud_speed: float = 1.0,
) -> dict[str, Any]:
    """What the report says; null stands for what nobody measured."""
    manifest = report.bundle.manifest
    said: dict[str, Any] = {
        "bundle": manifest.name,
        "version": manifest.version,
        "format": manifest.format,
        "sha256": report.bundle.sha256,
        "task": manifest.task,
        "classes": manifest.classes,
        "default_budget_ms": manifest.default_budget_ms,
        "bytes": report.total_bytes,
        "light": msgspec.to_builtins(manifest.light),
        "large": {
            "sha256": manifest.large.sha256,
            "output": manifest.large.output.value,
            "weights_bytes": manifest.large.weights.bytes,
            "head_bytes": {str(p): b.bytes for p, b in manifest.large.head_files.items()},
            "multiply_adds": report.graph.multiply_adds if report.graph else None,
            "operators": len(report.graph.operators) if report.graph else None,
        },
        "build": msgspec.to_builtins(report.build),
        "provenance": manifest.provenance,
        "cuts": [_cut(report, cut) for cut in report.cuts],
        "plans": _plans(report, machine),
        "privacy": msgspec.to_builtins(report.privacy),
        "cascade": guarantee_json(report.bundle.calibration),
        "machines": [_machine(each) for each in report.machines],
        "what_if": None,
    }
    if machine is not None:
        cloud = cloud_of(report.machines)
        options = options_on(manifest, machine, cloud=cloud, link=link, cloud_speed=cloud_speed)
        found = verdict(options, left_ms=budget_ms)
        said["what_if"] = {
            "machine": machine.key,
            "cloud_machine": cloud.key if cloud else None,
            "cloud_speed": cloud_speed,
            "rtt_ms": link.rtt_ms,
            "mbps": link.mbps,
            "budget_ms": budget_ms,
            "taken": str(found.decision.option.plan),
            "layers": found.answer.layers,
            "fits": found.decision.fits,
            "margin": found.words,
            "runner_up": str(found.runner_up.plan) if found.runner_up else None,
            "plans": [_answer(each, why) for each, why in decided(options, left_ms=budget_ms)],
            "ladder": [
                {
                    "from_ms": rung.from_ms,
                    "plan": str(rung.answer.option.plan),
                    "layers": rung.answer.layers,
                    "agreement": rung.answer.agreement,
                }
                for rung in ladder(options)
            ],
        }
    return said


def _cut(report: Inspection, cut: CutFacts) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(cut),
        "kept": cut.kept,
        "int8_bytes": cut.elements,
        "plans": [each.row.plan for each in report.plans_at(cut.name)],
    }


def _plans(report: Inspection, machine: Machine | None) -> list[dict[str, Any]]:
    manifest = report.bundle.manifest
    front = front_plans(report, machine)
    times = device_ms(manifest, machine) if machine else []
    by_plan = dict(zip((row.plan for row in manifest.table), times, strict=False))
    return [
        {
            **msgspec.to_builtins(each.row),
            "code": each.code,
            "front": each.row.plan in front,
            "gives_away": report.gives_away(each),
            "device_ms": _finite(by_plan.get(each.row.plan)),
        }
        for each in report.plans
        if isinstance(each, PlanFacts)
    ]


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "key": machine.key,
        "here": machine.here,
        "name": machine.name,
        "times": machine.origin,
        **msgspec.to_builtins(machine.profile),
    }


def _answer(answer: Answer, reason: str) -> dict[str, Any]:
    return {
        "plan": str(answer.option.plan),
        "layers": answer.layers,
        "agreement": answer.agreement,
        "device_ms": _finite(answer.option.device_ms),
        "network_ms": _finite(answer.network_ms),
        "cloud_ms": _finite(answer.option.cloud_ms),
        "total_ms": _finite(answer.total_ms),
        "reason": reason,
    }


def _finite(ms: float | None) -> float | None:
    """JSON knows no infinity."""
    return ms if ms is not None and isfinite(ms) else None
