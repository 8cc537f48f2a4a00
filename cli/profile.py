"""`hybridge profile`: how long every stage of a bundle takes on this machine, or on a board."""

import argparse
from typing import TYPE_CHECKING

import msgspec

from ..shared.bundle import find_bundle, open_bundle
from ..shared.errors import ConfigError
from .boards import print_boards
from .console import StepProgress, complain, console, notes, print_json, table
from .options import add_bundles, trust

if TYPE_CHECKING:
    from ..devices.profile import Profile, StageTime

_MIB = 1 << 20
_FEWEST_RUNS = 10
_NEWS = 0.05
"""A median that moved by less than this share is the same as before."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "profile",
        help="time every stage of a bundle on this machine, and keep that beside it",
        description="An edge does this by itself at its first start with a bundle; do it again on "
        "a quiet machine, or with more runs, for better forecasts.",
    )
    parser.add_argument("bundle", metavar="NAME|DIR", nargs="?")
    parser.add_argument("--runs", type=int, default=200, help="of each stage")
    parser.add_argument("--threads", type=int, default=1, help="per model run, as the edge's")
    parser.add_argument("--board", metavar="NAME", help="show an estimate for a board; keeps none")
    parser.add_argument("--boards", action="store_true", help="list the boards there are")
    parser.add_argument("--json", action="store_true")
    add_bundles(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    if options.boards:
        return print_boards(as_json=options.json)
    if options.bundle is None:
        raise ConfigError("which bundle? `hybridge profile NAME`, or --boards for the known boards")
    return _show_estimate(options) if options.board else _measure(options)


def _measure(options: argparse.Namespace) -> int:
    from ..devices.probe import probe  # with the extra `edge` alone
    from ..devices.profile import Profile, load_profile, save_profile
    from ..devices.profiling import profile_bundle
    from ..edge.selftest import golden_picture

    if options.runs < _FEWEST_RUNS or options.threads < 1:
        raise ConfigError(f"--runs takes at least {_FEWEST_RUNS}, --threads at least 1")
    bundle = open_bundle(find_bundle(options.bundle, root=options.bundles), trust=trust(options))
    before: Profile | None = load_profile(  # a damaged one is told before anything is measured
        bundle.profiles, probe(), bundle_sha256=bundle.sha256, threads=options.threads
    )
    with StepProgress() as progress:
        measured = profile_bundle(
            bundle,
            golden_picture(bundle),
            runs=options.runs,
            threads=options.threads,
            on_stage=lambda what, done, total: progress(
                "memory of each model" if what.startswith("memory") else "timing every stage",
                done,
                total,
            ),
        )
    kept = {
        **(before.stages if before else {}),
        **measured.stages,
    }  # the builder's cloud stages too
    file = save_profile(msgspec.structs.replace(measured, stages=kept), bundle.profiles)
    if options.json:
        was = before.stages if before else {}
        print_json(
            {
                **msgspec.to_builtins(measured),
                "file": str(file),
                "before": {name: msgspec.to_builtins(was[name]) for name in kept if name in was},
                "warnings": measured.conditions.warnings(),
            }
        )
        return 0
    _print(measured, before=before.stages if before else {}, title=f"{options.runs} runs")
    for warning in measured.conditions.warnings():
        complain(warning)
    console.print(f"kept in {file}")
    return 0


def _show_estimate(options: argparse.Namespace) -> int:
    from ..devices.boards import read_board
    from .boards import estimated

    board = read_board(options.board)
    bundle = open_bundle(find_bundle(options.bundle, root=options.bundles), trust=trust(options))
    profile = estimated(bundle, board)
    if options.json:
        print_json({**msgspec.to_builtins(profile), "board": board.name})
        return 0
    _print(profile, before={}, title=f"ESTIMATED for a {board.title}")
    factors = ", ".join(f"{kind} x{factor:g}" for kind, factor in profile.factors.items())
    console.print(f"nobody measured this: times of another machine, {factors}")
    for source in board.sources.values():
        notes.print(f"after {source.title}: {source.url}", soft_wrap=True)
    return 0


def _print(profile: "Profile", *, before: "dict[str, StageTime]", title: str) -> None:
    rows = [
        (
            name,
            f"{time.p50_ms:.2f}",
            f"{time.p95_ms:.2f}",
            f"{time.p999_ms:.2f}",
            f"{time.cpu_ms:.2f}" if time.cpu_ms else "-",
            f"{time.drift - 1:+.0%}",
            f"{profile.memory_bytes[name] / _MIB:.0f}" if name in profile.memory_bytes else "-",
            _news(time, before.get(name)),
        )
        for name, time in profile.stages.items()
    ]
    columns = ("stage", "p50", "p95", "p99.9", "CPU", "drift", "MiB", "before")
    threads = f", {profile.threads} threads" if profile.threads > 1 else ""
    console.print(table(f"ms per run, {title}{threads}", columns, rows))
    if "device" in profile.memory_bytes:
        whole = profile.memory_bytes["device"] / _MIB
        console.print(f"all that an edge loads grows its memory by {whole:.0f} MiB")


def _news(time: "StageTime", before: "StageTime | None") -> str:
    """What the median was, if it is another now; CPU time is compared where both have it."""
    if before is None:
        return ""
    both = time.cpu_ms > 0 and before.cpu_ms > 0
    now_ms, was_ms = (each.cpu_ms if both else each.p50_ms for each in (time, before))
    moved = was_ms > 0 and abs(now_ms / was_ms - 1) >= _NEWS
    return f"{now_ms:.2f} ms, was {was_ms:.2f}" if moved else "the same"
