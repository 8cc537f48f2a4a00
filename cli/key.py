"""`hybridge key`: the public key of this machine, by which others trust its bundles."""

import argparse

from ..shared.paths import Paths
from ..shared.signing import SigningKey
from .console import print_json, print_line


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "key",
        help="print the public key that signs this machine's bundles",
        description="Other machines trust it from a *.pub file in their trusted/ folder, or by "
        "--trust FILE.",
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    public_key = SigningKey.load_or_create(Paths.from_environment().signing_key).public_hex
    if options.json:
        print_json({"public_key": public_key})
    else:
        print_line(public_key)
    return 0
