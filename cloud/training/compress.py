"""From a large model and unlabelled pictures to a learned bottleneck and its card.

pictures ─┬─▶ views ─▶ large model (ONNX Runtime) ─▶ answers, kept by picture ──┐
          └─▶ views ─▶ pixels, kept ─▶ early layers ─▶ features, kept ──────────┴─▶ training
trained net ─▶ an ONNX file of encoder and decoder, for recipes (cloud/compiler/bottleneck.py)

Everything that takes time is on disk as soon as it is there: the same call carries on.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto

from ...shared.errors import BuildError
from ...shared.manifest import OutputKind
from ..compiler.bottleneck import LATENTS, Facts, write_bottleneck
from ..compiler.card import card_path
from ..compiler.files import write_whole
from ..compiler.locks import held
from ..compiler.onnx_flow import OnnxFlow
from ..compiler.onnx_source import onnx_bytes
from ..compiler.progress import Progress
from ..compiler.steps import sha256
from .bottleneck_card import BottleneckCard
from .bottleneck_course import BottleneckCourse, encoded
from .bottleneck_net import Bottleneck, Decoder, Encoder, Features, on_grid
from .bottleneck_onnx import as_onnx
from .card import PictureFacts, TeacherFacts
from .gathering import Sources, key_of
from .halves import FeatureCut, Tail, Trunk, choose_cut, feature_cuts
from .lessons import Lessons
from .rows import RowFile
from .settings import BottleneckSettings, TrainingSettings
from .trainer import Trained, Trainer, Watch

_LEARNING_RATE = 3e-3
_MEASURED = 256
"""Rows from which the decoder learns how large features are, and the card what a latent takes."""


@dataclass(frozen=True, kw_only=True)
class Task(Sources):
    """All that a bottleneck depends on."""

    bottleneck: BottleneckSettings
    training: TrainingSettings


@dataclass(frozen=True)
class Compressed:
    """An ONNX model of encoder and decoder, and what is known of it."""

    model: ModelProto
    facts: Facts
    card: BottleneckCard


def compress(task: Task, *, device: torch.device, progress: Progress, watch: Watch) -> Compressed:
    """Trains a bottleneck; BuildError says what failed."""
    task.refuse_measured()
    teacher, settings = task.teacher, task.training
    if settings.epochs == 0:
        raise BuildError("0 epochs teach a bottleneck nothing; take more (--epochs)")
    large = teacher.steps.onnx(teacher.source, teacher.spec)
    size_px = teacher.spec.size_px
    cut = choose_cut(
        feature_cuts(large, size_px=size_px), size_px=size_px, wanted=task.bottleneck.cut
    )
    lessons, kind = task.lessons(
        teacher.spec, views=settings.views, held_out=settings.held_out, progress=progress
    )
    run = task.folder / f"run-{_fingerprint(task, cut)}"
    with held(run.parent / f"{run.name}.lock", on_wait=lambda: progress("another run", 0, 0)):
        features = _features(task, large, cut, lessons, device, progress)
        wanted = _facts_of(cut, features[lessons.learned[:_MEASURED]])
        net = _net(task.bottleneck, wanted, seed=settings.seed)
        course = BottleneckCourse(
            Tail(large, cut, position=_position(large, task)),
            features,
            lessons,
            bottleneck=task.bottleneck,
            training=settings,
            probabilities=kind is OutputKind.PROBABILITIES,
            device=device,
        )
        trained = Trainer(
            net,
            course,
            settings,
            learning_rate=settings.learning_rate or _LEARNING_RATE,
            statistics=True,
            device=device,
            checkpoint=run / "checkpoint.pt",
            watch=watch,
        ).run()
    net = net.cpu().eval()
    model = as_onnx(net, wanted, size_px=size_px)
    facts = Facts(
        replaces=cut.onnx.tensor,
        large_sha256=teacher.source.sha256,
        bits=_bits(net, lessons),
    )
    return Compressed(model, facts, _card(task, model, facts, net, lessons, trained, large))


def _features(
    task: Task,
    large: ModelProto,
    cut: FeatureCut,
    lessons: Lessons,
    device: torch.device,
    progress: Progress,
) -> npt.NDArray[Any]:
    """What the large model has at the cut for every row of the lessons, float16."""
    trunk: list[Trunk] = []

    def make(start: int, stop: int) -> npt.NDArray[Any]:
        if not trunk:
            trunk.append(Trunk(large, cut).to(device))
        with torch.inference_mode():
            inputs = lessons.inputs(np.arange(start, stop), device)
            made: npt.NDArray[Any] = trunk[0](inputs).float().cpu().numpy()
        return made

    pixels = Path(getattr(lessons.pixels, "filename", "")).name
    name = key_of([task.teacher.source.sha256, cut.onnx.tensor, pixels])
    shape = (cut.channels, cut.side, cut.side)
    rows = RowFile(task.folder / f"features-{name}", shape, np.float16, len(lessons.pixels))
    return rows.filled(
        make, on_rows=lambda done, total: progress("features of the large model", done, total)
    )


def _facts_of(cut: FeatureCut, some: npt.NDArray[Any]) -> Features:
    values = np.asarray(some, np.float32)
    if not np.isfinite(values).all():
        raise BuildError(f"{cut.onnx.tensor!r} holds values beyond float16; choose another --cut")
    return Features(
        channels=cut.channels,
        side=cut.side,
        halvings=cut.halvings,
        scale=float(np.sqrt(np.mean(values**2))) or 1.0,
        relu=bool(values.min() >= 0),
    )


def _net(settings: BottleneckSettings, features: Features, *, seed: int) -> Bottleneck:
    torch.manual_seed(seed)
    channels = settings.channels
    encoder = Encoder(halvings=features.halvings, width=settings.width, channels=channels)
    decoder = Decoder(
        features,
        channels=channels,
        width=settings.decoder_width,
        blocks=settings.decoder_blocks,
    )
    return Bottleneck(encoder, decoder, channels=channels)


def _position(large: ModelProto, task: Task) -> int:
    """That of the answer among the outputs."""
    names = [value.name for value in large.graph.output]
    wanted = task.teacher.answer_name
    if wanted and wanted not in names:
        raise BuildError(f"the model has no output {wanted!r}; it has {', '.join(names)}")
    return names.index(wanted) if wanted else 0


def _bits(net: Bottleneck, lessons: Lessons) -> float:
    """What a latent takes in the mean, by the net's own reckoning, on pictures held out."""
    rows = lessons.held_out[:_MEASURED]
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            inputs = lessons.inputs(row[None], torch.device("cpu"))
            latents = on_grid(encoded(net, inputs))
            total += float(net.rate(latents).sum())
            count += latents.numel()
    return round(total / count, 4)


def _card(
    task: Task,
    model: ModelProto,
    facts: Facts,
    net: Bottleneck,
    lessons: Lessons,
    trained: Trained,
    large: ModelProto,
) -> BottleneckCard:
    own, whole = OnnxFlow.of(model), OnnxFlow.of(large).flow
    return BottleneckCard(
        bottleneck_sha256=sha256(onnx_bytes(model)),
        parameters=sum(each.numel() for each in net.parameters()),
        replaces=facts.replaces,
        latents=own.shapes[LATENTS],
        bits=facts.bits,
        sent_bytes=round(facts.bits * math.prod(own.shapes[LATENTS]) / 8, 1),
        work=round(own.flow.work_of([LATENTS]) / max(1, whole.total_work), 6),
        teacher=TeacherFacts(model=task.teacher_name, sha256=task.teacher.source.sha256),
        pictures=PictureFacts(
            sha256=task.pictures.sha256,
            learned=len(lessons.learned),
            held_out=len(lessons.held_out),
            views=lessons.views,
        ),
        settings={"bottleneck": asdict(task.bottleneck), "training": asdict(task.training)},
        epochs=trained.epochs,
        best_epoch=trained.best_epoch,
        held_out_agreement=round(trained.score, 6),
        tools=task.teacher.steps.tools,
    )


def _fingerprint(task: Task, cut: FeatureCut) -> str:
    """The same for the same training; every change of a setting is another."""
    return key_of(
        [
            task.teacher.sha256,
            task.pictures.sha256,
            cut.onnx.tensor,
            asdict(task.bottleneck),
            asdict(task.training),
            task.teacher.steps.tools,
        ]
    )


def write_compressed(made: Compressed, output: Path) -> None:
    """OUTPUT.onnx and its card."""
    write_whole(card_path(output), made.card.encoded())
    write_bottleneck(made.model, made.facts, output)
