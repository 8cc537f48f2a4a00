"""What an attack made of a bundle's frames, as a table of words."""

from ...shared.privacy import Attack, Likeness
from ..words import NOTHING, SPACE, count_words

Row = tuple[str, ...]

COLUMNS: Row = ("what the attacker has", "SSIM", "its p95", "distance")


def title(attack: Attack) -> str:
    """What was tried on what."""
    learned = attack.learned
    trained = count_words(learned.learned + learned.held_out, "public picture")
    rebuilt = count_words(attack.guess.pictures, "picture")
    return f"{rebuilt} rebuilt at {attack.size_px}{SPACE}px, by nets trained on {trained}"


def rows(attack: Attack) -> list[Row]:
    """From nothing at all over the splits, which stand as in the bundle's table, to pictures."""
    return [
        _row("nothing (the mean public picture)", attack.guess),
        *(_row(each.plan, each.likeness) for each in attack.splits),
        *(_row(plan, likeness) for plan, likeness in attack.pictures.items()),
    ]


def figure(value: float | None, digits: int = 2) -> str:
    """A likeness or a distance."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def _row(name: str, found: Likeness) -> Row:
    mean = f"{figure(found.ssim)} ±{SPACE}{found.ssim_error:.2f}"
    return (name, mean, figure(found.ssim_p95), figure(found.distance, 3))
