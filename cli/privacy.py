"""`hybridge privacy`: how well pictures can be rebuilt from what a bundle's plans send."""

import argparse
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..report.privacy.tables import COLUMNS, rows, title
from ..shared.bundle import Bundle, find_bundle, open_bundle
from ..shared.errors import BuildError, ConfigError
from ..shared.paths import Paths
from ..shared.privacy import FILE, Attack, Privacy, encode_privacy, read_privacy
from ..shared.signing import SigningKey, TrustStore
from .console import StepProgress, console, notes, print_json, table
from .options import add_bundles, trust
from .training import add_device, settings_of, torch_device, use_threads

if TYPE_CHECKING:
    from ..cloud.training.inversion import Rebuilt, Task
    from ..cloud.training.trainer import Standing

_LOWER_BOUND = (
    "A lower bound on what leaks: a stronger attacker, or one with more pictures, may do better. "
    "A low figure does not make data anonymous."
)


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "privacy",
        help="try to rebuild pictures from what a bundle's plans send, and keep the figures",
        description="Trains a net per cut that rebuilds pictures from decoded frames, and compares "
        "what it makes of pictures it never saw with the originals. The figures are kept beside "
        "the manifest, signed, and requests may set a limit on them. Killed at any moment, the "
        "same command carries on. Without --pictures it shows what is known.",
    )
    parser.add_argument("bundle", metavar="NAME|DIR")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="what the attacker trains on")
    parser.add_argument(
        "--victims",
        type=Path,
        metavar="DIR",
        help="pictures to rebuild, such as devices send (a tenth of --pictures, kept apart)",
    )
    _add_training(parser.add_argument_group("the attacker's nets, and how they learn"))
    add_device(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="examples side by side, one page")
    parser.add_argument("--json", action="store_true", help="all figures, for programs")
    add_bundles(parser)
    parser.set_defaults(run=run)


def _add_training(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--size-px", type=int, help="of what is rebuilt and compared (64)")
    group.add_argument("--width", type=int, help="channels at that size (32)")
    group.add_argument("--epochs", type=int, help="at most (20)")
    group.add_argument("--batch", type=int, help="pictures a step (16)")
    group.add_argument("--learning-rate", type=float, help="at its highest (0.002)")
    group.add_argument("--views", type=int, help="of each picture (2)")
    group.add_argument("--held-out", type=float, help="share that tells when to stop (0.1)")
    group.add_argument("--patience", type=int, help="epochs without progress before the end (5)")
    group.add_argument("--seed", type=int, help="of all that is random in it (0)")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    trusted = trust(options)
    bundle = open_bundle(find_bundle(options.bundle, root=options.bundles), trust=trusted)
    known = _known(bundle, trusted)  # a damaged one is told before anything is measured
    if options.pictures is None:
        _refuse_page(options)
        attacks = known.attacks
    else:
        attack = _measure(options, bundle)
        _keep(attack, bundle, trusted)
        attacks = (attack,)
    if options.json:
        print_json({"bundle": bundle.manifest.name, "attacks": msgspec.to_builtins(attacks)})
    elif attacks:
        for each in attacks:
            console.print(table(title(each), COLUMNS, rows(each)))
        console.print(_LOWER_BOUND)
    else:
        console.print("Nobody has measured what its frames give away; name some --pictures.")
    return 0


def _refuse_page(options: argparse.Namespace) -> None:
    if options.html is not None:
        raise ConfigError("--html needs --pictures: figures are kept, rebuilt pictures are not")


def _measure(options: argparse.Namespace, bundle: Bundle) -> Attack:
    from ..cloud.training.inversion import invert  # torch: only who trains pays for it

    threads = use_threads(options.threads)
    if options.html is not None and (options.html.is_dir() or not options.html.parent.is_dir()):
        raise BuildError(f"cannot write {options.html}: name a file in a folder that is there")
    with StepProgress() as progress:
        progress("reading pictures", 0, 0)
        task = _task(options, bundle, threads=threads)
        attack, rebuilt = invert(
            task,
            device=torch_device(options.device),
            progress=progress,
            watch=lambda cut, standing: _told(progress, cut, standing),
        )
    if options.html is not None:
        _write_page(options.html, bundle, attack, rebuilt)
    return attack


def _task(options: argparse.Namespace, bundle: Bundle, *, threads: int) -> "Task":
    from ..cloud.compiler.pictures import open_pictures
    from ..cloud.training.inversion import FEWEST_VICTIMS, Task, keep_apart
    from ..cloud.training.settings import InversionSettings

    settings = settings_of(InversionSettings, options)
    classes = bundle.manifest.classes
    public = open_pictures(options.pictures, labels=None, classes=classes, minimum=1)
    if options.victims is None:
        public, victims = keep_apart(public, share=0.1)
    else:
        victims = open_pictures(
            options.victims, labels=None, classes=classes, minimum=FEWEST_VICTIMS
        )
    return Task(
        bundle=bundle,
        public=public,
        victims=victims,
        settings=settings,
        folder=Paths.from_environment().inversions,
        threads=threads,
    )


def _known(bundle: Bundle, trusted: TrustStore) -> Privacy:
    model = bundle.manifest.large.sha256
    return read_privacy(bundle, trust=trusted) or Privacy(model=model, attacks=())


def _keep(attack: Attack, bundle: Bundle, trusted: TrustStore) -> None:
    """Beside what others have kept meanwhile."""
    from ..cloud.compiler.files import write_whole

    key = SigningKey.load_or_create(Paths.from_environment().signing_key)
    file = bundle.path / FILE
    write_whole(file, encode_privacy(_known(bundle, trusted).with_attack(attack), key=key))
    notes.print(f"kept in {file}", soft_wrap=True)


def _write_page(file: Path, bundle: Bundle, attack: Attack, rebuilt: "Rebuilt") -> None:
    from ..report.privacy.page import render  # jinja2: with the extra `build`

    try:
        file.write_text(render(bundle, attack, rebuilt), encoding="utf-8")
    except OSError as error:
        raise BuildError(f"cannot write {file}: {error.strerror}") from error
    notes.print(f"page: {file}", soft_wrap=True)


def _told(progress: StepProgress, cut: str, standing: "Standing") -> None:
    note = (
        f"epoch {standing.epoch}/{standing.epochs}, loss {standing.loss:.3f}, held out "
        f"{standing.held_out_loss:.3f}, SSIM {standing.score:.3f}, "
        f"{timedelta(seconds=round(standing.left_s))} left"
    )
    progress(
        f"learning to rebuild from {cut}",
        (standing.epoch - 1) * standing.steps + standing.step,
        standing.epochs * standing.steps,
        note=note,
    )
    if standing.step == standing.steps and not notes.is_terminal:
        notes.print(f"  {note}")
