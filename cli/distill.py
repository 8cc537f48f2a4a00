"""`hybridge distill`: a small student of the large model, from pictures without labels."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.errors import BuildError
from ..shared.paths import Paths
from .console import StepProgress, console, print_line, table
from .training import (
    add_device,
    add_sources,
    add_training,
    refuse_folder,
    settings_of,
    sources_of,
    tell,
    torch_device,
    use_threads,
)

if TYPE_CHECKING:
    from ..cloud.compiler.recipe import Recipe
    from ..cloud.training.card import StudentCard
    from ..cloud.training.comparison import Comparison
    from ..cloud.training.distill import Task
    from ..cloud.training.trainer import Standing


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "distill",
        help="train a light model from the large one's answers",
        description="Trains a small student from the answers of a recipe's large model to pictures "
        "without labels, and writes it as int8 TFLite, with a card, where the recipe's [light] "
        "model is expected. Killed at any moment, the same command carries on.",
    )
    add_sources(parser, output=".tflite to write (the recipe's light model)")
    _add_student(parser.add_argument_group("the student"))
    add_training(
        parser.add_argument_group("how it learns"),
        learning_rate="0.002, of a backbone 0.0003",
        no_epochs="only a backbone's head",
    )
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


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from ..cloud.compiler.recipe import read_recipe
    from ..cloud.training.distill import distill, write_student

    recipe = read_recipe(options.recipe)
    output = _output(options.output, recipe)
    device = torch_device(options.device)
    threads = use_threads(options.threads)
    with StepProgress() as progress:
        done = distill(
            _task(options, recipe, progress, threads=threads),
            device=device,
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
    from ..cloud.training.distill import Task
    from ..cloud.training.settings import StudentSettings, TrainingSettings

    paths = Paths.from_environment()
    named = sources_of(options.pictures, recipe, paths, progress, threads=threads)
    return Task(
        teacher=named.teacher,
        teacher_name=named.teacher_name,
        spec=recipe.light.preprocessing,
        pictures=named.pictures,
        evaluation=named.evaluation,
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
    return refuse_folder(output)


def _told(progress: StepProgress, standing: "Standing") -> None:
    tell(progress, standing, f"agreement {standing.score:.1%}")


def _show(card: "StudentCard", output: Path) -> None:
    sets = [("held out", card.held_out)]
    if card.evaluation is not None:
        sets.append(("evaluation", card.evaluation))
    rows = [_row(name, found) for name, found in sets]
    columns = ("pictures", "n", "agreement", "teacher ≥ 0.9", "ECE before", "after")
    console.print(table("student and teacher", columns, rows))
    labels = card.evaluation.labels if card.evaluation else None
    if labels is not None:
        console.print(
            f"against the labels: student {labels.student.value:.1%}, teacher "
            f"{labels.teacher.value:.1%}: {labels.verdict} (p = {labels.p_value:.2g}, sign test)"
        )
    console.print(
        f"{output}: {card.student_bytes / 1e6:.2f} MB, temperature {card.temperature:g}, best "
        f"epoch {card.best_epoch} of {card.epochs}",
        soft_wrap=True,
        markup=False,
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
