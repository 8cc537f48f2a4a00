"""The first phase of a student with a backbone: only its head learns, on features kept on disk."""

import copy
from pathlib import Path

import numpy as np
import torch

from ..compiler.progress import Progress
from .answers import Floats
from .lessons import Lessons
from .loss import distillation_loss
from .rows import RowFile
from .settings import TrainingSettings
from .student import Student

_CHUNK = 16
_BATCH = 256
_EPOCHS = 200
_PATIENCE = 20
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-3


def backbone_features(
    net: Student, lessons: Lessons, file: Path, *, device: torch.device, progress: Progress
) -> Floats:
    """What the backbone makes of every row, float32 [rows, width]; resumes where it was killed."""
    net.eval().to(device)

    def make(start: int, stop: int) -> Floats:
        with torch.inference_mode():
            inputs = lessons.inputs(np.arange(start, stop), device)
            features: Floats = net.features(inputs).float().cpu().numpy()
        return features

    rows = RowFile(file, (net.head.in_features,), np.float32, len(lessons.logits))
    return rows.filled(
        make,
        chunk=_CHUNK,
        on_rows=lambda done, total: progress("features of the backbone", done, total),
    )


def train_head(
    net: Student, features: Floats, lessons: Lessons, settings: TrainingSettings
) -> tuple[float, float]:
    """Trains the head alone and returns its held-out loss and agreement; takes seconds."""
    torch.manual_seed(settings.seed)
    head = net.head.cpu()
    seen = torch.from_numpy(np.array(features))
    teacher = torch.from_numpy(lessons.logits)
    optimizer = torch.optim.AdamW(head.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return distillation_loss(
            head(seen[rows]), teacher[rows], temperature=settings.temperature, hard=settings.hard
        )

    held_out = torch.from_numpy(lessons.held_out)
    best, best_loss, stale = copy.deepcopy(head.state_dict()), float("inf"), 0
    for epoch in range(_EPOCHS):
        order = torch.from_numpy(lessons.draw(seed=settings.seed, epoch=epoch))
        for rows in torch.split(order, _BATCH):
            optimizer.zero_grad()
            loss_of(rows).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            loss = float(loss_of(held_out))
        if loss < best_loss:
            best, best_loss, stale = copy.deepcopy(head.state_dict()), loss, 0
        elif (stale := stale + 1) >= _PATIENCE:
            break
    head.load_state_dict(best)
    with torch.inference_mode():
        agreed = head(seen[held_out]).argmax(1) == teacher[held_out].argmax(1)
    return best_loss, float(agreed.float().mean())
