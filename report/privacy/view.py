"""What the page of an attack shows, worked out before the template sees it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from ...shared.bundle import Bundle
from ...shared.plan import Plan
from ...shared.privacy import Attack, Likeness
from ..svg import element
from ..words import NOTHING, SPACE, count_words
from .tables import figure

MOST_EXAMPLES = 6

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Example:
    """One picture as it is shown, and how alike it is to its original; empty for that itself."""

    image: str
    alike: str


@dataclass(frozen=True, slots=True)
class Line:
    """What the attacker has, how far that went, and what it made of the examples.

    `first` begins a group: another cut, or what is sent whole.
    """

    name: str
    ssim: str
    p95: str
    distance: str
    reach: Markup
    examples: list[Example]
    first: bool = False


@dataclass(frozen=True, slots=True)
class PrivacyView:
    """The page."""

    name: str
    headline: str
    facts: list[tuple[str, str]]
    originals: list[Example]
    guess: Line
    lines: list[Line]
    layers: str


def privacy_view(
    bundle: Bundle,
    attack: Attack,
    *,
    originals: Pixels,
    rebuilt: Mapping[Plan, Pixels],
    ssim: Mapping[Plan, Values],
) -> PrivacyView:
    """Of pictures uint8 [n, s, s, 3], and of each one's SSIM by plan."""
    shown = examples([ssim[plan] for plan in ssim if plan.cut])
    lines: list[Line] = []
    group = None
    for name, likeness in _in_order(attack):
        plan = Plan.parse(name)
        line = _line(
            name,
            likeness,
            attack.guess,
            [Example(_embedded(rebuilt[plan][at]), figure(float(ssim[plan][at]))) for at in shown],
            first=plan.cut != group,
        )
        group = plan.cut
        lines.append(line)
    return PrivacyView(
        name=f"{bundle.manifest.name} {bundle.manifest.version}",
        headline=_headline(attack),
        facts=_facts(bundle, attack),
        originals=[Example(_embedded(originals[at]), "") for at in shown],
        guess=_line("nothing at all", attack.guess, attack.guess, []),
        lines=lines,
        layers=", ".join(attack.layers),
    )


def examples(ssim: Sequence[Values], *, most: int = MOST_EXAMPLES) -> list[int]:
    """Positions evenly from the picture rebuilt worst, over all plans, to the one rebuilt best.

    >>> examples([np.array([0.3, 0.1, 0.2])], most=2)
    [1, 0]
    """
    order = np.argsort(np.mean(ssim, axis=0), kind="stable")
    places = np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)
    return [int(order[place]) for place in places]


def _in_order(attack: Attack) -> list[tuple[str, Likeness]]:
    splits = [(each.plan, each.likeness) for each in attack.splits]
    return [*splits, *attack.pictures.items()]


def _line(
    name: str, found: Likeness, guess: Likeness, shown: list[Example], *, first: bool = False
) -> Line:
    return Line(
        name=name,
        ssim=f"{figure(found.ssim)} ±{SPACE}{found.ssim_error:.2f}",
        p95=figure(found.ssim_p95),
        distance=figure(found.distance, 3),
        reach=_reach(found, guess=guess.ssim, title=f"{name}: SSIM {figure(found.ssim)}"),
        examples=shown,
        first=first,
    )


def _headline(attack: Attack) -> str:
    best = max(attack.splits, key=lambda each: each.likeness.ssim)
    least = min(attack.splits, key=lambda each: each.likeness.ssim)
    guess = figure(attack.guess.ssim)
    if best.likeness.ssim - least.likeness.ssim < 0.005:
        reached = f"Pictures were rebuilt to an SSIM of {figure(best.likeness.ssim)}"
    else:
        reached = (
            f"Pictures were rebuilt to an SSIM of {figure(least.likeness.ssim)} to "
            f"{figure(best.likeness.ssim)}"
        )
    return f"{reached}; a mere guess reaches {guess}"


def _facts(bundle: Bundle, attack: Attack) -> list[tuple[str, str]]:
    learned = attack.learned
    return [
        ("bundle", f"{bundle.manifest.name} {bundle.manifest.version}, {bundle.sha256[:16]}"),
        (
            "attacker",
            f"{attack.method}, a net for each cut, trained on decoded frames of "
            f"{count_words(learned.learned, 'public picture')} "
            f"({count_words(learned.views, 'view')} of each; "
            f"{learned.held_out:,} more told when to stop)",
        ),
        ("victims", f"{count_words(attack.guess.pictures, 'picture')} that no net had seen"),
        ("size", f"{attack.size_px}{SPACE}px a side: there pictures are rebuilt and compared"),
        ("distance", f"in {', '.join(attack.layers) or NOTHING} of the bundle's own large model"),
    ]


def _reach(found: Likeness, *, guess: float, title: str) -> Markup:
    """A bar to the mean, a tick at the p95, a line where a guess ends; from 0 to 1."""

    def at(value: float) -> str:
        return f"{100 * min(max(value, 0.0), 1.0):.2f}%"

    parts = [
        element("line", x1="0%", x2="100%", y1=9, y2=9, class_="grid"),
        element("rect", x="0%", y=4, width=at(found.ssim), height=10, class_="reach"),
        element("line", x1=at(found.ssim_p95), x2=at(found.ssim_p95), y1=2, y2=16, class_="mark"),
        element("line", x1=at(guess), x2=at(guess), y1=0, y2=18, class_="guess"),
    ]
    inside = Markup("").join([element("title", title), *parts])
    return element("svg", inside, width="100%", height=18, role="img", aria_label=title)


def _embedded(pixels: Pixels) -> str:
    """As it stands in the page, without a loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True)
    return base64.b64encode(buffer.getvalue()).decode()
