"""The matrix as an HTML page: for each link and budget, what each policy's answers were worth."""

from collections.abc import Sequence

from markupsafe import Markup

from hybridge.report.svg import Part, axis, bar, element

from .matrix import OURS, Group
from .scoring import Score

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1d1d1f; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
table { width: 100%; border-collapse: collapse; }
td { padding: 0 .6rem 0 0; vertical-align: middle; }
td.policy { width: 14rem; white-space: nowrap; } td.figure { width: 11rem; white-space: nowrap;
       font-variant-numeric: tabular-nums; }
tr.ours td { font-weight: 600; }
.fill.agreed { fill: #2f7d5b; } .fill.other { fill: #c9d8cf; } .fill.late { fill: #d9734e; }
.grid { stroke: #e3e3e3; } .tick { font-size: 11px; fill: #666; }
p.key span { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #161616; }
       .grid { stroke: #333; } .fill.other { fill: #47574d; } }
"""
_TICKS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)


def page(title: str, groups: Sequence[Group], notes: Sequence[str]) -> str:
    """The whole page."""
    body = [element("h1", title), *(element("p", note) for note in notes), _key()]
    for group in groups:
        body.append(element("h2", f"{group.link}, {group.budget_ms:g} ms"))
        body.append(
            element("table", _join([_row(p, s) for p, s in group.scores.items()] + [_axis()]))
        )
    head = element("meta", charset="utf-8") + element("title", title)
    head += element("style", Markup(_STYLE))  # noqa: S704  our own text
    html = element("html", element("head", head) + element("body", _join(body)), lang="en")
    return "<!doctype html>\n" + html


def _row(policy: str, score: Score) -> Markup:
    parts = [
        Part("agreed", 100 * score.agreement, "in time, and as the large model says"),
        Part("other", 100 * (score.in_budget - score.agreement), "in time, another answer"),
        Part("late", 100 * (1 - score.in_budget), "late, or no answer"),
    ]
    drawing = bar(parts, scale=100, height_px=24, described=policy, ticks=_TICKS)
    figures = f"{score.agreement:.1%} / {score.in_budget:.2%}, {score.p50_ms:.0f} ms"
    cells = (
        element("td", policy, class_="policy")
        + element("td", drawing)
        + element("td", figures, class_="figure")
    )
    return element("tr", cells, class_="ours" if policy == OURS else "rival")


def _axis() -> Markup:
    scale = element("td", axis(_TICKS, scale=100, unit="%"))
    return element("tr", element("td") + scale + element("td", "agreed / in budget, median"))


def _key() -> Markup:
    kinds = (
        ("#2f7d5b", "in time, as the large model says"),
        ("#c9d8cf", "in time, another answer"),
        ("#d9734e", "late, or none"),
    )
    words = [element("span", style=f"background:{colour}") + text for colour, text in kinds]
    return element("p", _join(words), class_="key")


def _join(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)
