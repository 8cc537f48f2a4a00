"""Options of the commands that train, and what they mean."""

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..shared.errors import ConfigError

if TYPE_CHECKING:
    import torch


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where it is trained."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, metavar="N", help="of the processor (all)")


def torch_device(wanted: str) -> "torch.device":
    """The device of an option; ConfigError if it is not there."""
    import torch  # heavy: only who trains pays for it

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError("no CUDA device is found; leave --device out to train on the processor")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def use_threads(wanted: int | None) -> int:
    """Sets how many threads torch uses, if that is wanted; how many it uses now."""
    import torch

    if wanted:
        torch.set_num_threads(wanted)
    return torch.get_num_threads()


def settings_of(kind: Any, options: argparse.Namespace) -> Any:
    """Those options that were given; the rest keeps its defaults."""
    given = {each.name: getattr(options, each.name) for each in fields(kind)}
    return kind(**{name: value for name, value in given.items() if value is not None})
