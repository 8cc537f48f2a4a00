"""The whole way, from a torch teacher and pictures to a student that a build takes."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.card import card_path, card_temperature
from hybridge.cloud.compiler.litert import Runner
from hybridge.cloud.compiler.pictures import open_pictures
from hybridge.cloud.compiler.sources import open_source
from hybridge.cloud.compiler.steps import Steps
from hybridge.cloud.training.card import StudentCard
from hybridge.cloud.training.distill import Distilled, Task, distill, write_student
from hybridge.cloud.training.settings import StudentSettings, TrainingSettings
from hybridge.cloud.training.teacher import Teacher
from hybridge.cloud.training.trainer import Standing
from hybridge.shared.errors import BuildError
from hybridge.shared.preprocess import PreprocessSpec

from ... import bundles

SPEC = PreprocessSpec(size_px=bundles.SIZE_PX, crop_padding_px=2)


class Audience:
    """Remembers the steps that were told, and how often the training said something."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.standings: list[Standing] = []

    def __call__(self, step: str, done: int, total: int) -> None:
        self.steps.append(step)

    def count(self, step: str) -> int:
        return self.steps.count(step)


def run(task: Task, audience: Audience) -> Distilled:
    steps = replace(task.teacher.steps, progress=audience)
    return distill(
        replace(task, teacher=replace(task.teacher, steps=steps)),
        device=torch.device("cpu"),
        progress=audience,
        watch=audience.standings.append,
    )


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("task")
    for name, seeds in (("learned", range(120)), ("evaluation", range(200, 212))):
        (folder / name).mkdir()
        for seed in seeds:
            Image.fromarray(bundles.picture(seed)).save(folder / name / f"{seed}.png")
    labels = folder / "labels.tsv"
    labels.write_text(
        "\n".join(f"{seed}.png\t{seed % bundles.CLASSES}" for seed in range(200, 212))
    )
    pictures, evaluation = (
        open_pictures(folder / name, labels=file, classes=bundles.CLASSES, minimum=1)
        for name, file in (("learned", None), ("evaluation", labels))
    )
    calibration = replace(evaluation, files=pictures.files[:8], labels=(None,) * 8)
    teacher = Teacher(
        source=open_source(f"{bundles.__name__}:large"),
        spec=SPEC,
        steps=Steps(StepCache(folder / "cache"), calibration, Audience()),
        classes=bundles.CLASSES,
    )
    return Task(
        teacher=teacher,
        teacher_name="large",
        spec=SPEC,
        pictures=pictures,
        evaluation=evaluation,
        student=StudentSettings(backbone=f"{bundles.__name__}:light"),
        training=TrainingSettings(epochs=1, held_out=0.2),
        folder=folder / "distill",
    )


@pytest.fixture(scope="module")
def first(task: Task) -> tuple[Distilled, Audience]:
    audience = Audience()
    return run(task, audience), audience


def test_the_card_says_what_was_done(task: Task, first: tuple[Distilled, Audience]) -> None:
    card = first[0].card
    assert (card.student_bytes, card.epochs) == (len(first[0].model), 1)
    assert card.teacher.sha256 == task.teacher.source.sha256
    assert card.pictures.learned + card.pictures.held_out == 120
    assert card.held_out.pictures == card.pictures.held_out
    assert card.evaluation is not None
    assert (card.evaluation.pictures, card.held_out.labels) == (12, None)
    assert card.evaluation.labels is not None
    assert card.temperature != 1.0
    assert card.held_out.after.negative_log_likelihood <= (
        card.held_out.before.negative_log_likelihood
    )
    assert msgspec.json.decode(card.encoded(), type=StudentCard) == card


def test_the_student_is_int8_inside_and_float_outside(first: tuple[Distilled, Audience]) -> None:
    model = first[0].model
    runner = Runner(model)
    side = bundles.SIZE_PX
    assert runner.run(np.zeros((1, side, side, 3), np.float32)).shape == (1, bundles.CLASSES)
    kinds = [each["dtype"] for each in Interpreter(model_content=model).get_tensor_details()]
    assert np.int8 in kinds  # weights at least; a float model has none


def test_nothing_is_computed_twice(task: Task, first: tuple[Distilled, Audience]) -> None:
    assert first[1].count("answers of the large model") == 121 + 13  # and the ends
    again = Audience()
    assert run(task, again) == first[0]
    assert again.count("answers of the large model") == 0
    assert again.standings == []
    assert again.count("training the head") == 0


def test_a_backbone_learns_its_head_first(task: Task, first: tuple[Distilled, Audience]) -> None:
    card, audience = first[0].card, first[1]
    (said,) = [step for step in audience.steps if step.startswith("head alone")]
    assert audience.count("features of the backbone") > 0
    assert len(audience.standings) > 0
    # Tuning starts from what the head has learned, and never ends below it.
    head_loss = float(said.split("loss ")[1].split(",")[0])
    assert audience.standings[0].held_out_loss == pytest.approx(head_loss, abs=1e-3)
    assert card.float_agreement >= float(said.split("agreement ")[1].rstrip("%")) / 100 - 0.05


def test_a_picture_that_is_measured_on_is_not_learned_from(task: Task, tmp_path: Path) -> None:
    assert task.evaluation is not None
    copy = tmp_path / "another name.png"
    copy.write_bytes(task.pictures.files[5].read_bytes())
    evaluation = replace(task.evaluation, files=(*task.evaluation.files[1:], copy))
    with pytest.raises(BuildError, match=r"1 evaluation pictures are among .*another name\.png"):
        run(replace(task, evaluation=evaluation), Audience())


def test_a_backbone_that_is_a_file_is_refused(task: Task, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"")
    student = StudentSettings(backbone=str(tmp_path / "net.tflite"))
    with pytest.raises(BuildError, match="is a file; name MODULE:FUNCTION"):
        run(replace(task, student=student), Audience())


def test_a_teacher_with_other_classes_is_refused(task: Task, tmp_path: Path) -> None:
    teacher = replace(task.teacher, classes=3)
    with pytest.raises(BuildError, match=r"gives logits \[5\], there are 3 labels"):
        run(replace(task, teacher=teacher, folder=tmp_path), Audience())


def test_it_is_written_with_a_card_that_a_build_takes(
    first: tuple[Distilled, Audience], tmp_path: Path
) -> None:
    output = tmp_path / "sub" / "student.tflite"
    write_student(first[0], output)
    card = first[0].card
    assert output.read_bytes() == first[0].model
    assert card_temperature(output, sha256=card.student_sha256) == card.temperature
    assert card_path(output).exists()
