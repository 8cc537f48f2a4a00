"""From a large model and unlabelled pictures to a small int8 student and its card.

pictures ─┬─▶ views ─▶ large model (ONNX Runtime) ─▶ answers, kept by picture ──┐
          └─▶ views ─▶ student's pixels, kept ─▶ (features ─▶ head) ─▶ training ─┴─▶ float student
float student ─▶ LiteRT ─▶ int8 ─▶ temperature on held-out pictures ─▶ card

Everything that takes time is on disk as soon as it is there: the same call carries on.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...devices.pixel_input import value_range
from ...shared.errors import BuildError
from ...shared.manifest import OutputKind
from ...shared.preprocess import PreprocessSpec
from ..compiler.card import card_path
from ..compiler.files import write_whole
from ..compiler.litert import Runner
from ..compiler.locks import held
from ..compiler.progress import Count, Progress, counted
from ..compiler.sources import ModelSource, open_source
from ..compiler.steps import Steps, sha256
from ..compiler.temperature import fit_temperature
from ..compiler.tflite_pixels import on_pixels
from .answers import Floats
from .card import PictureFacts, StudentCard, TeacherFacts
from .comparison import compare
from .frozen import backbone_features, train_head
from .gathering import Sources, key_of, resized
from .lessons import Lessons, as_logits
from .settings import StudentSettings, TrainingSettings
from .student import Student, freeze_below, make_student, student_of
from .student_course import StudentCourse
from .trainer import Trained, Trainer, Watch
from .views import all_views

_FROM_SCRATCH = 2e-3
_FROM_BACKBONE = 3e-4


@dataclass(frozen=True, kw_only=True)
class Task(Sources):
    """All that a distillation depends on."""

    spec: PreprocessSpec
    student: StudentSettings
    training: TrainingSettings


@dataclass(frozen=True)
class Distilled:
    """An int8 TFLite model and what is known of it."""

    model: bytes
    card: StudentCard


def distill(task: Task, *, device: torch.device, progress: Progress, watch: Watch) -> Distilled:
    """Trains, converts and measures a student; BuildError says what failed."""
    task.refuse_measured()
    backbone = open_source(task.student.backbone) if task.student.backbone else None
    settings = task.training
    if backbone is None and settings.epochs == 0:
        raise BuildError("0 epochs teach a net of random weights nothing; name a --backbone")
    lessons, kind = task.lessons(
        task.spec, views=settings.views, held_out=settings.held_out, progress=progress
    )
    run = task.folder / f"run-{_fingerprint(task, backbone)}"
    with held(run.parent / f"{run.name}.lock", on_wait=lambda: progress("another run", 0, 0)):
        net, trained = _train(task, backbone, lessons, run, device, progress, watch)
    steps = task.teacher.steps
    model = _exported(net, task.spec, steps)
    rows = lessons.held_out
    measuring = partial(progress, "measuring the student")
    outputs = _outputs(model, lessons.pixels[rows], task.spec, count=measuring)
    temperature = fit_temperature(outputs, lessons.answers[rows], OutputKind.LOGITS)
    evaluation = None
    if task.evaluation is not None:
        views = all_views(task.evaluation.files, 1)
        store = task.teacher.store(task.folder)
        answers = as_logits(task.teacher.answer(views, store, progress=progress), kind)
        resize = task.resizer(task.spec)
        pixels = np.stack([resized(each, resize) for each in views])
        evaluation = compare(
            _outputs(model, pixels, task.spec, count=measuring),
            answers,
            temperature=temperature,
            labels=task.evaluation.labels,
        )
    card = StudentCard(
        student_sha256=sha256(model),
        student_bytes=len(model),
        parameters=sum(each.numel() for each in net.parameters()),
        temperature=temperature,
        teacher=TeacherFacts(model=task.teacher_name, sha256=task.teacher.source.sha256),
        pictures=PictureFacts(
            sha256=task.pictures.sha256,
            learned=len(lessons.learned),
            held_out=len(rows),
            views=lessons.views,
        ),
        settings={"student": asdict(task.student), "training": asdict(task.training)},
        epochs=trained.epochs,
        best_epoch=trained.best_epoch,
        float_agreement=round(trained.score, 6),
        held_out=compare(outputs, lessons.logits[rows], temperature=temperature),
        evaluation=evaluation,
        tools=steps.tools,
    )
    return Distilled(model, card)


def _train(
    task: Task,
    backbone: ModelSource | None,
    lessons: Lessons,
    run: Path,
    device: torch.device,
    progress: Progress,
    watch: Watch,
) -> tuple[Student, Trained]:
    settings, classes = task.training, task.teacher.classes
    torch.manual_seed(settings.seed)
    checkpoint = run / "checkpoint.pt"
    if backbone is None:
        net = make_student(width=task.student.width, depth=task.student.depth, classes=classes)
    else:
        net = _student_of(task, backbone)
        if not checkpoint.exists():  # which holds what the head has learned
            _train_head(task, backbone, net, lessons, device, progress)
        freeze_below(net.features, tuned=task.student.tuned)
    trainer = Trainer(
        net,
        StudentCourse(lessons, settings),
        settings,
        learning_rate=settings.learning_rate or (_FROM_BACKBONE if backbone else _FROM_SCRATCH),
        statistics=backbone is None,
        device=device,
        checkpoint=checkpoint,
        watch=watch,
    )
    return net, trainer.run()


def _student_of(task: Task, backbone: ModelSource) -> Student:
    if backbone.module is None:
        raise BuildError(
            f"backbone {task.student.backbone!r} is a file; name MODULE:FUNCTION that returns a "
            "torch module, which can learn"
        )
    return student_of(backbone.module, size_px=task.spec.size_px, classes=task.teacher.classes)


def _train_head(
    task: Task,
    backbone: ModelSource,
    net: Student,
    lessons: Lessons,
    device: torch.device,
    progress: Progress,
) -> None:
    pixels = Path(getattr(lessons.pixels, "filename", "")).name
    file = task.folder / f"features-{key_of([backbone.sha256, pixels])}"
    features = backbone_features(net, lessons, file, device=device, progress=progress)
    progress("training the head", 0, 0)
    loss, agreement = train_head(net, features, lessons, task.training)
    progress(f"head alone: held-out loss {loss:.3f}, agreement {agreement:.1%}", 0, 0)


def _exported(net: Student, spec: PreprocessSpec, steps: Steps) -> bytes:
    """The student as int8 TFLite, by the compiler's own steps."""
    net = net.cpu().eval()
    digest = hashlib.sha256(repr(net).encode())
    for name, weights in sorted(net.state_dict().items()):
        digest.update(name.encode() + weights.numpy().tobytes())
    source = ModelSource(module=net, file=None, sha256=digest.hexdigest())
    tensors = steps.calibration_tensors(steps.preprocess(spec))
    float32 = steps.litert(source, tensors, what="student")
    int8 = steps.int8(float32, tensors, what="student", pixels=value_range(spec))
    return on_pixels(int8, spec)


def _outputs(
    model: bytes, pixels: npt.NDArray[Any], spec: PreprocessSpec, *, count: Count
) -> Floats:
    """What a TFLite student gives for pixels, uint8 [n, s, s, 3]: float32 [n, classes]."""
    runner = Runner(model)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    outputs = [
        runner.run((each[None].astype(np.float32) - mean) / std)[0]
        for each in counted(pixels, count)
    ]
    return np.stack(outputs).astype(np.float32)


def _fingerprint(task: Task, backbone: ModelSource | None) -> str:
    """The same for the same training; every change of a setting is another."""
    return key_of(
        [
            task.teacher.sha256,
            task.pictures.sha256,
            asdict(task.spec),
            asdict(task.student),
            asdict(task.training),
            backbone.sha256 if backbone else "",
            task.teacher.steps.tools,
        ]
    )


def write_student(distilled: Distilled, output: Path) -> None:
    """OUTPUT.tflite and its card; the card first, so that no model lies there with an old one."""
    write_whole(card_path(output), distilled.card.encoded())
    write_whole(output, distilled.model)
