"""From a large model and unlabelled pictures to a small int8 student and its card.

pictures ─┬─▶ views ─▶ large model (ONNX Runtime) ─▶ answers, kept by picture ──┐
          └─▶ views ─▶ student's pixels, kept ─▶ (features ─▶ head) ─▶ training ─┴─▶ float student
float student ─▶ LiteRT ─▶ int8 ─▶ temperature on held-out pictures ─▶ card

Everything that takes time is on disk as soon as it is there: the same call carries on.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
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
from ..compiler.pictures import PictureSet
from ..compiler.sources import ModelSource, open_source
from ..compiler.steps import Progress, Steps, sha256
from ..compiler.temperature import fit_temperature
from ..compiler.tflite_pixels import on_pixels
from .answers import Floats
from .card import PictureFacts, StudentCard, TeacherFacts
from .comparison import compare
from .frozen import backbone_features, train_head
from .lessons import Lessons, as_logits, output_kind_of, split
from .rows import RowFile
from .settings import StudentSettings, TrainingSettings
from .student import Student, freeze_below, make_student, student_of
from .student_course import StudentCourse
from .teacher import Teacher
from .trainer import Trained, Trainer, Watch
from .views import PictureView, all_views

_FROM_SCRATCH = 2e-3
_FROM_BACKBONE = 3e-4


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a distillation depends on; `folder` is where it keeps what it has done.

    `evaluation`, with labels where they are known, is only ever measured on.
    """

    teacher: Teacher
    teacher_name: str
    spec: PreprocessSpec
    pictures: PictureSet
    evaluation: PictureSet | None
    student: StudentSettings
    training: TrainingSettings
    folder: Path


@dataclass(frozen=True)
class Distilled:
    """An int8 TFLite model and what is known of it."""

    model: bytes
    card: StudentCard


def distill(task: Task, *, device: torch.device, progress: Progress, watch: Watch) -> Distilled:
    """Trains, converts and measures a student; BuildError says what failed."""
    _refuse_measured(task)
    backbone = open_source(task.student.backbone) if task.student.backbone else None
    lessons, kind = _lessons(task, progress)
    run = task.folder / f"run-{_fingerprint(task, backbone)}"
    with held(run.parent / f"{run.name}.lock", on_wait=lambda: progress("another run", 0, 0)):
        net, trained = _train(task, backbone, lessons, run, device, progress, watch)
    steps = task.teacher.steps
    model = _exported(net, task.spec, steps)
    rows = lessons.held_out
    progress("measuring the student", 0, 0)
    outputs = _outputs(model, lessons.pixels[rows], task.spec)
    temperature = fit_temperature(outputs, lessons.answers[rows], OutputKind.LOGITS)
    evaluation = None
    if task.evaluation is not None:
        views = all_views(task.evaluation.files, 1)
        store = task.teacher.store(task.folder)
        answers = as_logits(task.teacher.answer(views, store, progress=progress), kind)
        resize = _resizer(steps, task.spec)
        pixels = np.stack([_resized(each, resize) for each in views])
        evaluation = compare(
            _outputs(model, pixels, task.spec),
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


def _refuse_measured(task: Task) -> None:
    """BuildError if a picture is both learned from and measured on: figures would promise too much.

    Copies are found by their content, wherever they lie.
    """
    if task.evaluation is None:
        return
    learned = {view.key: view.file for view in all_views(task.pictures.files, 1)}
    twins = [view for view in all_views(task.evaluation.files, 1) if view.key in learned]
    if twins:
        raise BuildError(
            f"{len(twins)} evaluation pictures are among those to learn from, such as "
            f"{twins[0].file} ({learned[twins[0].key]}); leave each in one folder only"
        )


def _lessons(task: Task, progress: Progress) -> tuple[Lessons, OutputKind]:
    """Every view as the student sees it, with the teacher's answer to that very view."""
    files, count = task.pictures.files, task.training.views
    views = all_views(files, count)
    teacher = task.teacher
    outputs = teacher.answer(views, teacher.store(task.folder), progress=progress)
    kind = output_kind_of(outputs)
    keys = [view.key for view in views]
    learned, held_out = split(keys[: len(files)], held_out=task.training.held_out)
    resize = _resizer(teacher.steps, task.spec)

    def make(start: int, stop: int) -> npt.NDArray[Any]:
        return np.stack([_resized(view, resize) for view in views[start:stop]])

    side = task.spec.size_px
    name = _key([asdict(task.spec), hashlib.sha256(b"".join(keys)).hexdigest()])
    rows = RowFile(task.folder / f"pixels-{name}", (side, side, 3), np.uint8, len(views))
    pixels = rows.filled(
        make, on_rows=lambda done, total: progress("pictures as the student sees them", done, total)
    )
    return Lessons(pixels, as_logits(outputs, kind), learned, held_out, task.spec), kind


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
    file = task.folder / f"features-{_key([backbone.sha256, pixels])}"
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


def _outputs(model: bytes, pixels: npt.NDArray[Any], spec: PreprocessSpec) -> Floats:
    """What a TFLite student gives for pixels, uint8 [n, s, s, 3]: float32 [n, classes]."""
    runner = Runner(model)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    outputs = [runner.run((each[None].astype(np.float32) - mean) / std)[0] for each in pixels]
    return np.stack(outputs).astype(np.float32)


def _resizer(steps: Steps, spec: PreprocessSpec) -> Runner:
    return Runner(steps.preprocess(spec), signature="resize")


def _resized(view: PictureView, resize: Runner) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] = resize.run(view.pixels()[None])[0]
    return pixels


def _fingerprint(task: Task, backbone: ModelSource | None) -> str:
    """The same for the same training; every change of a setting is another."""
    return _key(
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


def _key(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_student(distilled: Distilled, output: Path) -> None:
    """OUTPUT.tflite and its card; the card first, so that no model lies there with an old one."""
    write_whole(card_path(output), distilled.card.encoded())
    write_whole(output, distilled.model)
