"""`hybridge build`: models and pictures in, a measured bundle out."""

import argparse
from pathlib import Path

from .console import StepProgress, console, print_json
from .options import add_bundles


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "build",
        help="make a bundle from a light and a large model",
        description="Makes a bundle as a recipe says (TOML; see docs/recipe.md). An interrupted "
        "build carries on where it was.",
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--json", action="store_true", help="print the path and hash as JSON")
    add_bundles(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from ..cloud.compiler.recipe import read_recipe  # heavy: only who builds pays for it
    from .building import build_recipe

    with StepProgress() as progress:
        bundle = build_recipe(read_recipe(options.recipe), root=options.bundles, progress=progress)
    if options.json:
        print_json({"path": str(bundle.path), "sha256": bundle.sha256})
    else:
        console.print(f"bundle {bundle.manifest.name} {bundle.manifest.version} at {bundle.path}")
        console.print(f"next: hybridge plan {bundle.manifest.name} --budget 100")
    return 0
