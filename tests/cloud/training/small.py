"""A training so small that it takes seconds; run as a script, it trains until it is killed.

python small.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch

from hybridge.cloud.training.lessons import Lessons
from hybridge.cloud.training.settings import TrainingSettings
from hybridge.cloud.training.student import Student, make_student
from hybridge.cloud.training.student_course import StudentCourse
from hybridge.cloud.training.trainer import Standing, Trained, Trainer, Watch
from hybridge.shared.preprocess import PreprocessSpec

SIZE_PX, CLASSES, PICTURES = 32, 3, 64
SPEC = PreprocessSpec(size_px=SIZE_PX)
SETTINGS = TrainingSettings(epochs=4, batch=8, patience=100, views=2)


def lessons(*, views: int = 2) -> Lessons:
    """Pictures that are red, green or blue, and a teacher who is rather sure which."""
    random = np.random.default_rng(0)
    classes = np.tile(np.arange(PICTURES) % CLASSES, views)
    pixels = random.integers(0, 120, (views * PICTURES, SIZE_PX, SIZE_PX, 3)).astype(np.uint8)
    pixels[np.arange(len(classes)), :, :, classes] += 120
    logits = random.normal(0, 0.3, (views * PICTURES, CLASSES)).astype(np.float32)
    logits[np.arange(len(classes)), classes] += 4
    order = random.permutation(PICTURES)
    return Lessons(pixels, logits, order[16:], order[:16], SPEC)


def train(
    folder: Path,
    watch: Watch = lambda standing: None,
    *,
    settings: TrainingSettings = SETTINGS,
    learning_rate: float = 3e-3,
    statistics: bool = True,
    checkpoint_every_s: float = 60.0,
    net: Student | None = None,
) -> tuple[Student, Trained]:
    """One thread: sums are then added in the same order in every process."""
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    net = net or make_student(width=0.25, depth=0.1, classes=CLASSES)
    trainer = Trainer(
        net,
        StudentCourse(lessons(), settings),
        settings,
        learning_rate=learning_rate,
        statistics=statistics,
        device=torch.device("cpu"),
        checkpoint=folder / "checkpoint.pt",
        watch=watch,
        checkpoint_every_s=checkpoint_every_s,
    )
    return net, trainer.run()


def _say(standing: Standing) -> None:
    sys.stdout.write(f"{standing.epoch} {standing.step}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    train(Path(sys.argv[1]), _say, checkpoint_every_s=0)
