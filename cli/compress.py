"""`hybridge compress`: a learned bottleneck for the large model, from pictures without labels."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.errors import BuildError
from ..shared.paths import Paths
from .console import StepProgress, console, print_line
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
    from ..cloud.training.bottleneck_card import BottleneckCard
    from ..cloud.training.compress import Task
    from ..cloud.training.trainer import Standing


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "compress",
        help="train a bottleneck in place of the large model's early layers",
        description="Trains a small encoder, for devices, and a decoder, for clouds, in place of "
        "the early layers of a recipe's large model, from pictures without labels, and writes both "
        "as one .onnx file, with a card. Name it in the recipe, [large] bottlenecks, and "
        "`hybridge build` takes it as one more cut. Killed at any moment, the same command carries "
        "on.",
    )
    add_sources(parser, output=".onnx to write (the recipe's bottleneck)")
    _add_bottleneck(parser.add_argument_group("the bottleneck"))
    add_training(parser.add_argument_group("how it learns"), learning_rate="0.003")
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print the card as JSON")
    parser.set_defaults(run=run)


def _add_bottleneck(group: Any) -> None:
    group.add_argument(
        "--bytes", type=float, dest="sent_bytes", help="a picture may take, in the mean (1000)"
    )
    group.add_argument("--cut", metavar="TENSOR", help="that the decoder makes, its ONNX name")
    group.add_argument("--width", type=int, help="channels of the encoder's first layer (24)")
    group.add_argument("--channels", type=int, help="that cross the link (24)")
    group.add_argument("--decoder-width", type=int, help="channels in the decoder (256)")
    group.add_argument("--decoder-blocks", type=int, help="residual blocks in the decoder (1)")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from ..cloud.compiler.recipe import read_recipe
    from ..cloud.training.compress import compress, write_compressed

    recipe = read_recipe(options.recipe)
    output = _output(options.output, recipe)
    device = torch_device(options.device)
    threads = use_threads(options.threads)
    with StepProgress() as progress:
        done = compress(
            _task(options, recipe, progress, threads=threads),
            device=device,
            progress=progress,
            watch=lambda standing: _told(progress, standing),
        )
        progress("writing the bottleneck", 0, 0)
        write_compressed(done, output)
    if options.json:
        print_line(done.card.encoded().decode().strip())
    else:
        _show(done.card, output, recipe)
    return 0


def _task(
    options: argparse.Namespace, recipe: "Recipe", progress: StepProgress, *, threads: int
) -> "Task":
    from ..cloud.training.compress import Task
    from ..cloud.training.settings import BottleneckSettings, TrainingSettings

    bottleneck = settings_of(BottleneckSettings, options)
    training = settings_of(TrainingSettings, options)
    paths = Paths.from_environment()
    named = sources_of(options.pictures, recipe, paths, progress, threads=threads)
    return Task(
        teacher=named.teacher,
        teacher_name=named.teacher_name,
        pictures=named.pictures,
        evaluation=named.evaluation,
        bottleneck=bottleneck,
        training=training,
        folder=paths.bottlenecks,
    )


def _output(given: Path | None, recipe: "Recipe") -> Path:
    named = recipe.large.bottlenecks
    if given is None and len(named) != 1:
        raise BuildError(
            f'the recipe names {len(named)} bottlenecks; write [large] bottlenecks = ["NAME.onnx"] '
            "there, or name the file by --output"
        )
    output = given or named[0]
    if output.suffix != ".onnx":
        raise BuildError(
            f'{output} is no .onnx file; write [large] bottlenecks = ["NAME.onnx"] in the recipe, '
            "or name one by --output"
        )
    return refuse_folder(output)


def _told(progress: StepProgress, standing: "Standing") -> None:
    tell(progress, standing, f"agreement {standing.score:.1%}, {standing.sent_bytes:,.0f} bytes")


def _show(card: "BottleneckCard", output: Path, recipe: "Recipe") -> None:
    console.print(
        f"{output}: {card.work:.1%} of the multiply-adds before the link, "
        f"{card.sent_bytes:,.0f} bytes a picture by its own reckoning; on {card.pictures.held_out} "
        f"pictures held out {card.held_out_agreement:.1%} of the large model's answers, in float; "
        f"best epoch {card.best_epoch} of {card.epochs}",
        soft_wrap=True,
        markup=False,
    )
    if output not in recipe.large.bottlenecks:
        console.print(
            f'next: [large] bottlenecks = ["{output}"] in the recipe, hybridge build',
            soft_wrap=True,
            markup=False,
        )
