"""`hybridge probe`: what machine this is, as far as it decides the speed of a model."""

import argparse

import msgspec

from ..devices.probe import probe
from .console import console, print_json, table


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("probe", help="say what machine this is")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    device = probe()
    facts = {**msgspec.to_builtins(device), "fingerprint": device.fingerprint}
    if options.json:
        print_json(facts)
        return 0
    facts["memory_bytes"] = f"{device.memory_bytes / 2**30:.1f} GiB"
    facts["features"] = " ".join(device.features) or "-"
    rows = [(name.removesuffix("_bytes"), str(value)) for name, value in facts.items()]
    console.print(table("this machine", ("what", "is"), rows))
    return 0
