"""`hybridge build`: models and pictures in, a measured bundle out."""

import argparse
import re
from pathlib import Path

from ..report.inspect.guarantee import guarantee_json, summary
from ..shared.paths import Paths
from .console import StepProgress, console, print_json
from .options import add_bundles

_CACHE_GB = 20
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "build",
        help="make a bundle from a light and a large model",
        description="Makes a bundle as a recipe says (TOML; see docs/recipe.md). An interrupted "
        "build carries on where it was; one with a thing changed redoes what depends on it.",
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument(
        "--cache-size",
        type=size_bytes,
        default=_CACHE_GB * 10**9,
        metavar="SIZE",
        help="how much finished steps may take on disk, such as 500M or 20G; those unused for the "
        f"longest go first ({_CACHE_GB}G)",
    )
    parser.add_argument("--json", action="store_true", help="print the path and hash as JSON")
    add_bundles(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from ..cloud.compiler.cache import StepCache  # heavy: only who builds pays for it
    from ..cloud.compiler.recipe import read_recipe
    from .building import build_recipe

    cache = StepCache(Paths.from_environment().build_cache, size_bytes=options.cache_size)
    with StepProgress() as progress:
        bundle = build_recipe(
            read_recipe(options.recipe), root=options.bundles, progress=progress, cache=cache
        )
    if options.json:
        print_json(
            {
                "path": str(bundle.path),
                "sha256": bundle.sha256,
                "cascade": guarantee_json(bundle.calibration),
                "steps": {"made": cache.made, "reused": cache.reused},
            }
        )
    else:
        console.print(f"bundle {bundle.manifest.name} {bundle.manifest.version} at {bundle.path}")
        if bundle.calibration is not None:
            console.print(summary(bundle.calibration))
        if cache.reused:
            console.print(f"{len(cache.made)} steps made, {len(cache.reused)} as they were")
        console.print(f"next: hybridge plan {bundle.manifest.name} --budget 100")
    return 0


def size_bytes(text: str) -> int:
    """A size as people write it, in powers of ten.

    >>> size_bytes("1.5G")
    1500000000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500M or 20G")
    return int(float(match[1]) * _UNITS[match[2].upper()])
