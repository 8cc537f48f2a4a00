"""A colour per plan: the device alone green, splits blue by depth, whole pictures red by bytes."""

from collections.abc import Sequence

from ...shared.plan import PlanKind
from .facts import PlanFacts

_LOCAL = "oklch(0.87 0.16 125)"


def colours(plans: Sequence[PlanFacts]) -> dict[str, str]:
    """CSS colours by plan, light enough for dark letters on them, in one order of hue per kind."""
    made = {each.row.plan: _LOCAL for each in plans if each.plan.kind is PlanKind.LOCAL}
    for kind, first, last in ((PlanKind.SPLIT, 185.0, 295.0), (PlanKind.CLOUD, 20.0, 75.0)):
        found = [each.row.plan for each in plans if each.plan.kind is kind]
        for at, plan in enumerate(found):
            share = at / max(len(found) - 1, 1)
            lightness = 0.70 + 0.14 * (at % 2)  # neighbours differ in more than hue
            made[plan] = f"oklch({lightness:.2f} 0.12 {first + (last - first) * share:.0f})"
    return made
