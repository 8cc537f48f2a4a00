"""From which confidence on the device's answer may stand, for several levels of the guarantee."""

from typing import Any

from ...shared.calibration import Calibration
from ...shared.cascade import DELTA, Level, Refusal, Threshold, certify
from ..words import NOTHING, SPACE, count_words, rate_words
from .facts import Inspection
from .tables import Grid, Row

ALPHAS = (0.005, 0.01, 0.02, 0.05, 0.1)


def certified(calibration: Calibration | None) -> list[Threshold | Refusal]:
    """A threshold, or what is missing for one, by alpha; empty where nothing was measured."""
    if calibration is None:
        return []
    return [certify(calibration, Level(alpha)) for alpha in ALPHAS]


def guarantee(report: Inspection) -> Grid:
    """Thresholds of the cascade."""
    calibration = report.bundle.calibration
    rows = [_row(each) for each in certified(calibration)]
    title = f"Cascade: thresholds that hold with confidence {rate_words(1 - DELTA)}"
    if calibration:
        title += f", from {len(calibration):,} pictures"
    columns = ("may differ", "confidence", "stays local", "differed there", "at most", "remarks")
    return Grid(title, columns, rows)


def guarantee_json(calibration: Calibration | None) -> list[dict[str, Any]] | None:
    """For programs; None for a bundle that was built before this was measured."""
    found = certified(calibration)
    return [_as_json(each) for each in found] if found else None


def summary(calibration: Calibration) -> str:
    """The strictest level that the pictures support, and what the next would take, in a line."""
    found = certified(calibration)
    missing = [each for each in found if isinstance(each, Refusal)]
    held = next((each for each in found if isinstance(each, Threshold)), None)
    if held is None:
        weakest, pictures = missing[-1], count_words(len(calibration), "evaluation picture")
        return (
            f"cascade: no guarantee from {pictures}; the weakest, {_percent(weakest.level.alpha)}, "
            f"{_missing(weakest)}"
        )
    words = (
        f"cascade: of the answers from confidence {held.confidence:.6f} on "
        f"({rate_words(held.share_local)} of the pictures) at most "
        f"{_percent(held.level.alpha)} differ, with confidence {rate_words(1 - DELTA)}"
    )
    if missing:
        words += f"; {_percent(missing[-1].level.alpha)} {_missing(missing[-1])}"
    return words


def _row(found: Threshold | Refusal) -> Row:
    may_differ = _percent(found.level.alpha)
    if isinstance(found, Refusal):
        return (may_differ, NOTHING, NOTHING, NOTHING, NOTHING, _missing(found))
    return (
        may_differ,
        f"{found.confidence:.6f}",
        rate_words(found.share_local),
        f"{found.differed} of {found.local:,}",
        rate_words(found.upper, digits=2),
        "",
    )


def _missing(found: Refusal) -> str:
    if found.needed is None:
        return "is out of reach: even the most confident quarter differs too often"
    return f"needs about {found.needed:,} pictures ({found.fewest:,} if all agreed)"


def _percent(alpha: float) -> str:
    return f"{100 * alpha:g}{SPACE}%"


def _as_json(found: Threshold | Refusal) -> dict[str, Any]:
    said: dict[str, Any] = {
        "alpha": found.level.alpha,
        "delta": found.level.delta,
        "samples": found.samples,
    }
    if isinstance(found, Refusal):
        return said | {
            "confidence": None,
            "needs_pictures": found.needed,
            "fewest_pictures": found.fewest,
        }
    return said | {
        "confidence": found.confidence,
        "share_local": found.share_local,
        "local": found.local,
        "differed": found.differed,
        "upper": found.upper,
    }
