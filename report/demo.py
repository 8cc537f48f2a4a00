"""The demo's report: one page that needs nothing but a browser, and no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from .. import __version__
from ..client import Answer
from ..devices.probe import Device
from ..shared.manifest import PlanRow


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """One request of the demo; `answer` is None if none came, and `fault` says why.

    `thumbnail`: a small JPEG. `condition`: what the link was, such as "lte" or "cloud killed".
    """

    picture: str
    thumbnail: bytes
    condition: str
    budget_ms: float
    answer: Answer | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class DemoRun:
    """What was run where, and every answer; `links` gives RTT in ms and Mbit/s per condition."""

    bundle: str
    version: str
    table: Sequence[PlanRow]
    device: Device
    links: Mapping[str, tuple[float, float]]
    answers: Sequence[DemoAnswer]


def render(run: DemoRun) -> str:
    """The page as HTML; the same run gives the same bytes."""
    from .demo_view import DemoView

    page = _environment().get_template("demo.html")
    return page.render(view=DemoView(run), hybridge_version=__version__)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(name: str) -> Markup:
    """A long name that may be broken after its separators.

    >>> breakable("split:a/<b>")
    Markup('split:<wbr>a/<wbr>&lt;b&gt;')
    """
    written = str(escape(name))
    for separator in ":/":
        written = written.replace(separator, separator + "<wbr>")
    return Markup(written)  # noqa: S704 - escaped above
