"""What quantizing cost in accuracy: of each part that was chosen, before and after. Pure."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from ...shared.manifest import PlanRow, Precision, Quantized, Rates
from ...shared.plan import PlanKind
from .table import Measured


def with_accuracy(
    tried: Iterable[Quantized], measured: Measured, cuts: Sequence[str]
) -> tuple[Quantized, ...]:
    """The same records; what was chosen knows how often it, and what it was made of, was right.

    The large model's heads are judged by the deepest of `cuts`, with the codec that agrees best
    there. None where no picture of the table has a label, or no plan shows it.
    """
    return tuple(_with(each, measured, cuts) if each.chosen else each for each in tried)


def _with(each: Quantized, measured: Measured, cuts: Sequence[str]) -> Quantized:
    before, after = _rates(each, measured, cuts)
    return replace(
        each,
        accuracy=after.accuracy if after else None,
        float_accuracy=before.accuracy if before else None,
    )


def _rates(
    each: Quantized, measured: Measured, cuts: Sequence[str]
) -> tuple[Rates | None, Rates | None]:
    match each.part:
        case "light":
            local = _best(measured, PlanKind.LOCAL)
            return measured.light_in_float, local.rates() if local else None
        case "large" if cuts:
            heads = (
                _best(measured, PlanKind.SPLIT, cut=cuts[-1], head=head)
                for head in (Precision.FLOAT32, each.precision)
            )
            before, after = (row.rates() if row else None for row in heads)
            return before, after
        case "whole" if whole := _best(measured, PlanKind.CLOUD):
            return whole.rates(), whole.rates(each.precision)
        case _:
            return None, None


def _best(measured: Measured, kind: PlanKind, *, cut: str = "", head: str = "") -> PlanRow | None:
    """The row of such a plan that agrees best."""
    plans = ((row, row.parsed()) for row in measured.rows)
    found = [row for row, p in plans if (p.kind, p.cut, p.head) == (kind, cut, head)]
    return max(found, key=lambda row: row.agreement.value, default=None)
