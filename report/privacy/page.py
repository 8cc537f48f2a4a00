"""An attack as one page that needs nothing but a browser, and no network."""

from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from ... import __version__
from ...shared.bundle import Bundle
from ...shared.privacy import Attack
from ..demo import breakable
from .view import privacy_view

if TYPE_CHECKING:
    from ...cloud.training.inversion import Rebuilt


def render(bundle: Bundle, attack: Attack, rebuilt: "Rebuilt") -> str:
    """The page as HTML; the same attack gives the same page."""
    environment = Environment(
        loader=PackageLoader(__package__.rpartition(".")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    view = privacy_view(
        bundle,
        attack,
        originals=rebuilt.originals,
        rebuilt=rebuilt.by_plan,
        ssim=rebuilt.ssim,
    )
    return environment.get_template("privacy.html").render(view=view, hybridge_version=__version__)
