"""The demo's report: one page that needs nothing but a browser, and no network."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from .. import __version__
from .demo_view import demo_view
from .run import DemoAnswer, DemoRun

__all__ = ["DemoAnswer", "DemoRun", "render"]


def render(run: DemoRun) -> str:
    """The page as HTML; the same run gives the same page."""
    page = _environment().get_template("demo.html")
    return page.render(view=demo_view(run), hybridge_version=__version__)


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
