"""A training's state on disk: written whole, read without executing anything."""

import io
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ...shared.errors import BuildError
from ..compiler.files import write_whole

State = dict[str, Any]


@dataclass
class Progressed:
    """How far a training is, and all it needs to carry on as if it had never stopped."""

    net: State
    optimizer: State
    best: State
    best_loss: float
    best_epoch: int = 0
    epoch: int = 0
    step: int = 0
    stale: int = 0
    finished: bool = False


def save(state: Progressed, file: Path) -> None:
    """Replaces the checkpoint in one rename; BuildError if the disk is full."""
    buffer = io.BytesIO()
    torch.save({each.name: getattr(state, each.name) for each in fields(state)}, buffer)
    write_whole(file, buffer.getvalue())


def load(file: Path) -> Progressed | None:
    """The checkpoint, or None if there is none; BuildError if it is damaged."""
    if not file.exists():
        return None
    try:
        return Progressed(**torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        # Not in torch's words, which advise to load what may execute anything.
        raise BuildError(f"{file} is no checkpoint; remove it to train from the start") from error
