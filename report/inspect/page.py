"""The report as one page that needs nothing but a browser, and no network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from math import isfinite

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ... import __version__
from ...edge.router import Option
from ..demo import breakable
from ..words import NOTHING, bytes_words, ms_words
from .colours import colours
from .data import device_times, page_data
from .facts import Inspection
from .machines import Link, Machine, cloud_of, options_on
from .tables import alike, front_plans, rate
from .view import inspect_view
from .whatif import decided, verdict


def render(
    report: Inspection,
    *,
    machine: Machine | None,
    link: Link,
    budget_ms: float,
    links: Mapping[str, Link],
    cloud_speed: float = 1.0,
) -> str:
    """The page as HTML; the same bundle, profiles and question give the same page."""
    shades = colours(report.plans)
    script = "".join(_template(name) for name in ("router.js", "inspect.js"))
    options = _options(report, machine, link, cloud_speed)
    page = _environment().get_template("inspect.html")
    return page.render(
        view=inspect_view(report, machine=machine, colours=shades),
        data=page_data(
            report,
            machine=machine,
            link=link,
            budget_ms=budget_ms,
            cloud_speed=cloud_speed,
            links=links,
            colours=shades,
        ),
        colours=shades,
        machine=machine,
        machines=report.machines,
        front=front_plans(report, machine),
        labelled=any(each.row.accuracy for each in report.plans),
        gives_away=[report.gives_away(each) for each in report.plans] if report.privacy else [],
        device_ms=device_times(report, machine) if machine else [],
        link=link,
        budget_ms=budget_ms,
        decided=decided(options, left_ms=budget_ms) if options else [],
        verdict=verdict(options, left_ms=budget_ms) if options else None,
        script=Markup(script),  # noqa: S704 - our own files
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        hybridge_version=__version__,
    )


def _options(
    report: Inspection, machine: Machine | None, link: Link, cloud_speed: float
) -> Sequence[Option]:
    if machine is None:
        return []
    return options_on(
        report.bundle.manifest,
        machine,
        cloud=cloud_of(report.machines),
        link=link,
        cloud_speed=cloud_speed,
    )


def _time(ms: float | None) -> str:
    return ms_words(ms) if ms is not None and isfinite(ms) else NOTHING


def _template(name: str) -> str:
    return files(__package__.rpartition(".")[0]).joinpath("templates", name).read_text("utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__.rpartition(".")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    environment.filters["rate"] = rate
    environment.filters["bytes"] = lambda count: bytes_words(count) if count else NOTHING
    environment.filters["ms"] = _time
    environment.filters["alike"] = alike
    return environment
