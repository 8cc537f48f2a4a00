"""`hybridge distill`: a small student of the large model, from pictures without labels."""

import argparse
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.errors import BuildError
from ..shared.paths import Paths
from .console import StepProgress, console, notes, print_line, table
from .training import add_device, settings_of, torch_device, use_threads

if TYPE_CHECKING:
    from ..cloud.compiler.recipe import Recipe
    from ..cloud.training.card import StudentCard
    from ..cloud.training.comparison import Comparison
    from ..cloud.training.distill import Task
    from ..cloud.training.trainer import Standing

_DEFAULTS = "as in docs/distillation.md"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "distill",
        help="train a light model from the large one's answers",
        description="Trains a small student from the answers of a recipe's large model to pictures "
        "without labels, and writes it as int8 TFLite, with a card, where the recipe's [light] "
        "model is expected. Killed at any moment, the same command carries on.",
    )
    parser.add_argument("recipe", type=Path, help="the recipe of the build (docs/recipe.md)")
    parser.add_argument(
        "--pictures", type=Path, required=True, metavar="DIR", help="pictures to learn from"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=".tflite to write (the recipe's light model)"
    )
    _add_student(parser.add_argument_group("the student"))
    _add_training(parser.add_argument_group(f"how it learns (defaults {_DEFAULTS})"))
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print the card as JSON")
    parser.set_defaults(run=run)


def _add_student(group: Any) -> None:
    group.add_argument("--width", type=float, help="channels, 1.0: EfficientNet-Lite0's (0.5)")
    group.add_argument("--depth", type=float, help="blocks, 1.0: EfficientNet-Lite0's (0.6)")
    group.add_argument(
        "--backbone", metavar="MODULE:FUNCTION", help="start from this torch module instead"
    )
    group.add_argument("--tuned", type=float, help="share of a backbone's layers that learn (0.5)")


def _add_training(group: Any) -> None:
    group.add_argument("--epochs", type=int, help="at most; 0: only the head of a backbone (30)")
    group.add_argument("--batch", type=int, help="pictures a step (32)")
    group.add_argument("--learning-rate", type=float, help="at its highest")
    group.add_argument("--temperature", type=float, help="that softens both answers (2)")
    group.add_argument("--hard", type=float, help="weight of the teacher's first choice (0.1)")
    group.add_argument("--views", type=int, help="of each picture, the teacher asked for each (1)")
    group.add_argument("--held-out", type=float, help="share never learned from (0.1)")
    group.add_argument("--patience", type=int, help="epochs without progress before the end (6)")
    group.add_argument("--seed", type=int)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from ..cloud.compiler.recipe import read_recipe
    from ..cloud.training.distill import distill, write_student

    recipe = read_recipe(options.recipe)
    output = _output(options.output, recipe)
    threads = use_threads(options.threads)
    with StepProgress() as progress:
        done = distill(
            _task(options, recipe, progress, threads=threads),
            device=torch_device(options.device),
            progress=progress,
            watch=lambda standing: _told(progress, standing),
        )
        progress("writing the student", 0, 0)
        write_student(done, output)
    if options.json:
        print_line(done.card.encoded().decode().strip())
    else:
        _show(done.card, output)
    return 0


def _task(
    options: argparse.Namespace, recipe: "Recipe", progress: StepProgress, *, threads: int
) -> "Task":
    from ..cloud.compiler.cache import StepCache
    from ..cloud.compiler.pictures import open_pictures
    from ..cloud.compiler.recipe import MIN_CALIBRATION_PICTURES
    from ..cloud.compiler.sources import open_source
    from ..cloud.compiler.steps import Steps
    from ..cloud.training.distill import Task
    from ..cloud.training.settings import StudentSettings, TrainingSettings
    from ..cloud.training.teacher import Teacher

    progress("reading the large model and pictures", 0, 0)
    paths = Paths.from_environment()
    try:
        classes = len(recipe.labels.read_text().splitlines())
    except OSError as error:
        raise BuildError(f"cannot read labels {recipe.labels}: {error.strerror}") from error
    given = recipe.pictures
    calibration = open_pictures(
        given.calibration, labels=None, classes=classes, minimum=MIN_CALIBRATION_PICTURES
    )
    return Task(
        teacher=Teacher(
            source=open_source(recipe.large.model),
            spec=recipe.large.preprocessing,
            steps=Steps(StepCache(paths.build_cache), calibration, progress),
            classes=classes,
            threads=threads,
            answer_name=recipe.large.answer,
        ),
        teacher_name=recipe.large.model,
        spec=recipe.light.preprocessing,
        pictures=open_pictures(options.pictures, labels=None, classes=classes, minimum=1),
        evaluation=open_pictures(given.evaluation, labels=given.labels, classes=classes, minimum=1),
        student=settings_of(StudentSettings, options),
        training=settings_of(TrainingSettings, options),
        folder=paths.distillations,
    )


def _output(given: Path | None, recipe: "Recipe") -> Path:
    output = given or Path(recipe.light.model)
    if output.suffix != ".tflite":
        raise BuildError(
            f'{output} is no .tflite file; write [light] model = "student.tflite" in the recipe, '
            "or name one by --output"
        )
    return output


def _told(progress: StepProgress, standing: "Standing") -> None:
    note = (
        f"epoch {standing.epoch}/{standing.epochs}, loss {standing.loss:.3f}, held out "
        f"{standing.held_out_loss:.3f}, agreement {standing.score:.1%}, "
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


def _show(card: "StudentCard", output: Path) -> None:
    sets = [("held out", card.held_out)]
    if card.evaluation is not None:
        sets.append(("evaluation", card.evaluation))
    rows = [_row(name, found) for name, found in sets]
    columns = ("pictures", "n", "agreement", "teacher ≥ 0.9", "ECE before", "after")
    console.print(table("student and teacher", columns, rows))
    labels = card.evaluation.labels if card.evaluation else None
    if labels is not None:
        verdict = "beats" if labels.student_wins else "does not beat"
        console.print(
            f"against the labels: student {labels.student.value:.1%}, teacher "
            f"{labels.teacher.value:.1%}: the student {verdict} its teacher "
            f"(p = {labels.p_value:.2g}, sign test)"
        )
    console.print(
        f"{output}: {card.student_bytes / 1e6:.2f} MB, temperature {card.temperature:g}, best "
        f"epoch {card.best_epoch} of {card.epochs}"
    )


def _row(name: str, found: "Comparison") -> tuple[str, ...]:
    sure = found.agreement_confident
    return (
        name,
        str(found.pictures),
        f"{found.agreement.value:.1%}",
        f"{sure.value:.1%}" if sure else "-",
        f"{found.before.calibration_error:.3f}",
        f"{found.after.calibration_error:.3f}",
    )
