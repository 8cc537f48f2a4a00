"""Options of the commands that train, and what they mean."""

import argparse
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.errors import BuildError, ConfigError
from ..shared.paths import Paths
from .console import StepProgress, notes

if TYPE_CHECKING:
    import torch

    from ..cloud.compiler.recipe import Recipe
    from ..cloud.training.gathering import Sources
    from ..cloud.training.trainer import Standing


def add_sources(parser: argparse.ArgumentParser, *, output: str) -> None:
    """Whose answers are learned, on which pictures, and where to; `output` says what of."""
    parser.add_argument("recipe", type=Path, help="the recipe of the build (docs/recipe.md)")
    parser.add_argument(
        "--pictures", type=Path, required=True, metavar="DIR", help="pictures to learn from"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where it is trained."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the nets learn (auto: on a GPU if torch finds one)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of the processor (all)")


def refuse_folder(output: Path) -> Path:
    """The file to write; BuildError if a folder is there, which else would be found at the end."""
    if output.is_dir():
        raise BuildError(f"{output} is a folder; name a file in it")
    return output


def add_training(group: Any, *, learning_rate: str, no_epochs: str = "") -> None:
    """How a net learns from the large model's answers.

    `learning_rate` says which it is if none is given, `no_epochs` what 0 of them mean.
    """
    zero = f"; 0: {no_epochs}" if no_epochs else ""
    group.add_argument("--epochs", type=int, help=f"at most{zero} (30)")
    group.add_argument("--batch", type=int, help="pictures a step (32)")
    group.add_argument("--learning-rate", type=float, help=f"at its highest ({learning_rate})")
    group.add_argument("--temperature", type=float, help="that softens both answers (2)")
    group.add_argument("--hard", type=float, help="weight of the teacher's first choice (0.1)")
    group.add_argument("--views", type=int, help="of each picture, the teacher asked for each (1)")
    group.add_argument("--held-out", type=float, help="share never learned from (0.1)")
    group.add_argument("--patience", type=int, help="epochs without progress before the end (6)")
    group.add_argument("--seed", type=int, help="of all that is random in it (0)")


def torch_device(wanted: str) -> "torch.device":
    """The device of an option; ConfigError if it is not there."""
    import torch  # heavy: only who trains pays for it

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError("no CUDA device is found; leave --device out to train on the processor")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def use_threads(wanted: int | None) -> int:
    """Sets how many threads torch uses, if that is wanted; how many it uses now."""
    if wanted is not None and wanted < 1:
        raise ConfigError(f"--threads {wanted}: 1 or more are possible")
    import torch

    if wanted is not None:
        torch.set_num_threads(wanted)
    return torch.get_num_threads()


def settings_of(kind: Any, options: argparse.Namespace) -> Any:
    """Those options that were given; the rest keeps its defaults."""
    given = {each.name: getattr(options, each.name) for each in fields(kind)}
    return kind(**{name: value for name, value in given.items() if value is not None})


def sources_of(
    pictures: Path, recipe: "Recipe", paths: Paths, progress: StepProgress, *, threads: int
) -> "Sources":
    """The recipe's large model, and the pictures to learn from beside those it is measured on."""
    from ..cloud.compiler.cache import StepCache
    from ..cloud.compiler.checks import check_labelled, read_class_names
    from ..cloud.compiler.pictures import open_pictures
    from ..cloud.compiler.recipe import MIN_CALIBRATION_PICTURES
    from ..cloud.compiler.sources import open_source
    from ..cloud.compiler.steps import Steps
    from ..cloud.training.gathering import Sources
    from ..cloud.training.teacher import Teacher

    progress("reading the large model and pictures", 0, 0)
    classes = len(read_class_names(recipe.labels))
    given = recipe.pictures
    calibration = open_pictures(
        given.calibration, labels=None, classes=classes, minimum=MIN_CALIBRATION_PICTURES
    )
    learned = open_pictures(pictures, labels=None, classes=classes, minimum=1)
    evaluation = open_pictures(given.evaluation, labels=given.labels, classes=classes, minimum=1)
    check_labelled(
        given.labels, classes=classes, evaluation=evaluation, others=(calibration, learned)
    )
    return Sources(
        teacher=Teacher(
            source=open_source(recipe.large.model, allow_pickle=recipe.large.allow_pickle),
            spec=recipe.large.preprocessing,
            steps=Steps(StepCache(paths.build_cache), calibration, progress),
            classes=classes,
            threads=threads,
            answer_name=recipe.large.answer,
        ),
        teacher_name=recipe.large.model,
        pictures=learned,
        evaluation=evaluation,
        folder=paths.distillations,
    )


def tell(progress: StepProgress, standing: "Standing", measure: str) -> None:
    """How a training goes; `measure` is what the pictures held out say."""
    note = (
        f"epoch {standing.epoch}/{standing.epochs}, loss {standing.loss:.3f}, held out "
        f"{standing.held_out_loss:.3f}, {measure}, "
        f"{timedelta(seconds=round(standing.left_s))} left"
    )
    progress(
        "training",
        (standing.epoch - 1) * standing.steps + standing.step,
        standing.epochs * standing.steps,
        note=note,
    )
    if standing.step == standing.steps and not notes.is_terminal:
        notes.print(f"  {note}")
