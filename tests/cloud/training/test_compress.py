"""The whole way, from a torch model and pictures to a bottleneck that a build takes as a cut."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from hybridge.cloud.compiler.bottleneck import read_bottleneck, write_bottleneck
from hybridge.cloud.compiler.build import build
from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.card import card_path
from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.pictures import open_pictures
from hybridge.cloud.compiler.recipe import Recipe
from hybridge.cloud.compiler.sources import open_source
from hybridge.cloud.compiler.steps import Steps
from hybridge.cloud.training.bottleneck_card import BottleneckCard
from hybridge.cloud.training.compress import Compressed, Task, compress, write_compressed
from hybridge.cloud.training.halves import feature_cuts
from hybridge.cloud.training.settings import BottleneckSettings, TrainingSettings
from hybridge.cloud.training.teacher import Teacher
from hybridge.cloud.training.trainer import Standing
from hybridge.devices.models import DeviceModels
from hybridge.shared.bundle import Bundle, open_bundle
from hybridge.shared.codec import codec_by_name
from hybridge.shared.errors import BuildError
from hybridge.shared.frame import decode_payload, encode_frame, read_header
from hybridge.shared.manifest import Precision
from hybridge.shared.plan import PlanKind
from hybridge.shared.signing import SigningKey, TrustStore

from ... import bundles

PICTURES = 60
CUT = "b01-4x4x3"


class Killed(Exception):
    """In place of a kill."""


@dataclass(frozen=True)
class Ready:
    recipe: Recipe
    task: Task
    cache: StepCache


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    folder = tmp_path_factory.mktemp("compress")
    recipe = bundles.small_recipe(folder)
    (folder / "learned").mkdir()
    for seed in range(200, 200 + PICTURES):
        Image.fromarray(bundles.picture(seed)).save(folder / "learned" / f"{seed}.png")
    learned, calibration, evaluation = (
        open_pictures(each, labels=None, classes=bundles.CLASSES, minimum=1)
        for each in (folder / "learned", recipe.pictures.calibration, recipe.pictures.evaluation)
    )
    cache = StepCache(folder / "cache")
    teacher = Teacher(
        source=open_source(recipe.large.model),
        spec=recipe.large.preprocessing,
        steps=Steps(cache, calibration, lambda step, done, total: None),
        classes=bundles.CLASSES,
    )
    spec = teacher.spec
    cuts = feature_cuts(teacher.steps.onnx(teacher.source, spec), size_px=spec.size_px)
    task = Task(
        teacher=teacher,
        teacher_name="large",
        pictures=learned,
        evaluation=evaluation,
        bottleneck=BottleneckSettings(
            sent_bytes=16,
            cut=next(cut.onnx.tensor for cut in cuts if cut.side == 4),
            width=4,
            channels=3,
            decoder_width=8,
        ),
        training=TrainingSettings(epochs=3, batch=8, held_out=0.4),
        folder=folder / "trainings",
    )
    return Ready(recipe, task, cache)


def trained(task: Task, watch: Callable[[Standing], None] = lambda standing: None) -> Compressed:
    return compress(
        task,
        device=torch.device("cpu"),
        progress=lambda step, done, total: None,
        watch=watch,
    )


@pytest.fixture(scope="module")
def made(ready: Ready) -> Compressed:
    return trained(ready.task)


@pytest.fixture(scope="module")
def file(made: Compressed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bottleneck") / "large.bottleneck.onnx"
    write_compressed(made, output)
    return output


@pytest.fixture(scope="module")
def built(ready: Ready, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles")
    key = SigningKey.load_or_create(folder / "signing.key")
    large = replace(
        ready.recipe.large,
        bottlenecks=(file,),
        tails=(Precision.FLOAT32, Precision.INT8),
    )
    path = build(
        replace(ready.recipe, large=large),
        root=folder,
        key=key,
        cache=ready.cache,
        progress=lambda step, done, total: None,
    )
    return open_bundle(path, trust=TrustStore(frozenset({key.public_hex})))


def test_the_card_says_what_was_done(made: Compressed, ready: Ready) -> None:
    card = made.card
    assert card.latents == (3, 4, 4)
    assert card.pictures.learned + card.pictures.held_out == PICTURES
    assert card.teacher.sha256 == ready.task.teacher.source.sha256
    assert card.work > 0
    assert card.sent_bytes == pytest.approx(card.bits * 48 / 8, abs=0.06)
    assert msgspec.json.decode(card.encoded(), type=BottleneckCard) == card


def test_a_killed_training_carries_on_to_the_same_weights(
    made: Compressed, ready: Ready, tmp_path: Path
) -> None:
    task = replace(ready.task, folder=tmp_path)

    def kill(standing: Standing) -> None:
        if standing.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(task, kill)
    seen: list[Standing] = []
    again = trained(task, seen.append)
    assert min(standing.epoch for standing in seen) == 2
    assert again.model.SerializeToString(deterministic=True) == made.model.SerializeToString(
        deterministic=True
    )


def test_what_is_written_is_read(made: Compressed, file: Path) -> None:
    learned = read_bottleneck(file)
    assert learned.facts == made.facts
    assert learned.codecs
    assert card_path(file).is_file()


def test_a_build_takes_it_as_a_cut(built: Bundle, ready: Ready) -> None:
    manifest = built.manifest
    record = next(record for record in manifest.build.cuts if record.name == CUT)
    assert record.work == pytest.approx(_encoder_share(ready), abs=1e-6)
    assert record.error is not None
    assert record.error < 1e-4
    assert {each.part for each in manifest.build.quantized} >= {"bottleneck 1", "large", "light"}


def test_its_frames_are_answered_in_every_precision(built: Bundle) -> None:
    plans = [row.parsed() for row in built.manifest.table]
    own = [plan for plan in plans if plan.kind is PlanKind.SPLIT and plan.cut == CUT]
    assert own, "nothing else sends so little"
    models = DeviceModels(built)
    clouds = [CloudSide.open(built, precision=each) for each in built.manifest.large.precisions]
    pixels = models.resize_large(bundles.picture(7))
    for plan in own:
        contract = built.manifest.contract(plan)
        tensor = models.tensor(plan, pixels)
        frame = encode_frame(tensor, contract=contract, codec=codec_by_name(plan.codec, contract))
        decoded = decode_payload(frame, read_header(frame), contract=contract)
        answers = [cloud.run(plan.cut, decoded) for cloud in clouds]
        assert all(answer.shape == (bundles.CLASSES,) for answer in answers)
        np.testing.assert_allclose(
            answers[0], answers[1], atol=0.2 * float(np.abs(answers[0]).max())
        )


def test_another_models_bottleneck_is_refused(
    made: Compressed, ready: Ready, tmp_path: Path
) -> None:
    file = tmp_path / "other.onnx"
    write_bottleneck(made.model, msgspec.structs.replace(made.facts, large_sha256="0" * 64), file)
    large = replace(ready.recipe.large, bottlenecks=(file,))
    steps: list[str] = []
    with pytest.raises(BuildError, match="another large model"):
        build(
            replace(ready.recipe, large=large),
            root=tmp_path / "bundles",
            key=SigningKey.load_or_create(tmp_path / "signing.key"),
            cache=ready.cache,
            progress=lambda step, done, total: steps.append(step),
        )
    assert steps[-1] == "reading models", "it is said before anything is converted"


def test_pictures_that_are_measured_on_are_not_learned_from(ready: Ready) -> None:
    task = replace(ready.task, pictures=ready.task.evaluation or ready.task.pictures)
    with pytest.raises(BuildError, match="among those to learn from"):
        trained(task)


def test_a_cut_that_is_not_there_is_refused(ready: Ready) -> None:
    task = replace(ready.task, bottleneck=replace(ready.task.bottleneck, cut="nowhere"))
    with pytest.raises(BuildError, match="no bottleneck can end in 'nowhere'"):
        trained(task)


def _encoder_share(ready: Ready) -> float:
    """The multiply-adds of our encoder by hand over those of the tiny model."""
    first, second = 8 * 8 * 4 * 3 * 9, 4 * 4 * 8 * 4 * 9
    residual, last = 2 * 4 * 4 * 8 * 8 * 9, 4 * 4 * 3 * 8
    relu6 = 8 * 8 * 4 + 4 * 4 * 8 + 4 * 4 * 8
    add = 4 * 4 * 8
    own = first + second + residual + last + relu6 + add
    stem, widen = 4 * 4 * 8 * 3 * 9, 2 * 2 * 12 * 8 * 9
    large = stem + widen + 4 * 4 * 8 + 2 * 2 * 12 + 2 * 2 * 12 + 12 * bundles.CLASSES
    return own / large
