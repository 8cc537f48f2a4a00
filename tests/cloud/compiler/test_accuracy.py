"""What quantizing cost in accuracy: before and after, of what was chosen."""

from typing import Any

import pytest
from msgspec.structs import replace

from hybridge.cloud.compiler.accuracy import with_accuracy
from hybridge.cloud.compiler.table import Measured
from hybridge.shared.calibration import Calibration
from hybridge.shared.manifest import PlanRow, Precision, Quantized, Rate, Rates
from hybridge.shared.plan import Plan

EARLY, DEEP = "c00-8x8x4", "c01-12"


def rates(agreed: int, right: int) -> Rates:
    return Rates(agreement=Rate.of(agreed, 100), accuracy=Rate.of(right, 100))


def row(plan: Plan, agreed: int, right: int, **variants: Rates) -> PlanRow:
    own = rates(agreed, right)
    return PlanRow(
        plan=str(plan),
        agreement=own.agreement,
        accuracy=own.accuracy,
        bytes_p50=1,
        bytes_p95=1,
        variants={Precision(name): each for name, each in variants.items()},
    )


def split(cut: str, head: str, bits: int) -> Plan:
    return Plan.split(cut, head=head, codec=f"affine{bits}")


MEASURED = Measured(
    rows=(
        row(Plan.local(), 80, 70),
        row(Plan.cloud("jpeg-50"), 85, 74, int8=rates(84, 73)),
        row(Plan.cloud("raw"), 100, 90, int8=rates(98, 89)),
        row(split(EARLY, "int8", 8), 99, 91),
        row(split(DEEP, "int8", 3), 90, 80),
        row(split(DEEP, "int8", 8), 95, 86),
        row(split(DEEP, "float32", 8), 99, 88),
    ),
    calibration=Calibration(agreed=(), differed=()),
    light_in_float=rates(82, 72),
)


def tried(part: str, **more: Any) -> Quantized:
    made = Quantized(
        part=part, precision=Precision.INT8, method="static/mse", bytes=1, agreement=Rate.of(1, 1)
    )
    return replace(made, **{"chosen": True, **more})


@pytest.mark.parametrize(
    ("part", "before", "after"), [("light", 72, 70), ("large", 88, 86), ("whole", 90, 89)]
)
def test_before_and_after(part: str, before: int, after: int) -> None:
    (found,) = with_accuracy([tried(part)], MEASURED, [EARLY, DEEP])
    assert (found.float_accuracy, found.accuracy) == (Rate.of(before, 100), Rate.of(after, 100))


def test_what_was_not_chosen_is_left_as_it_is() -> None:
    rejected = tried("light", chosen=False)
    assert with_accuracy([rejected], MEASURED, [DEEP]) == (rejected,)


def test_what_no_plan_shows() -> None:
    heads, bottleneck = tried("large"), tried("bottleneck 1")
    assert with_accuracy([heads, bottleneck], MEASURED, []) == (heads, bottleneck)
    bare = Measured(rows=MEASURED.rows[:1], calibration=MEASURED.calibration)
    (light,) = with_accuracy([tried("light")], bare, [])
    assert (light.float_accuracy, light.accuracy) == (None, Rate.of(70, 100))


def test_without_labels() -> None:
    blind = Measured(
        rows=tuple(replace(each, accuracy=None, variants={}) for each in MEASURED.rows),
        calibration=MEASURED.calibration,
        light_in_float=replace(rates(82, 72), accuracy=None),
    )
    parts = [tried("light"), tried("large"), tried("whole")]
    assert with_accuracy(parts, blind, [DEEP]) == tuple(parts)
