"""`hybridge profile`: how long every stage of a bundle takes on this machine."""

import argparse

import msgspec
from rich.progress import track

from ..shared.bundle import find_bundle, open_bundle
from ..shared.errors import ConfigError
from .console import console, notes, print_json, table
from .options import add_bundles, trust


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "profile",
        help="time every stage of a bundle on this machine, and keep that beside it",
        description="An edge does this by itself at its first start with a bundle; do it again on "
        "a quiet machine, or with more runs, for better forecasts.",
    )
    parser.add_argument("bundle", metavar="NAME|DIR")
    parser.add_argument("--runs", type=int, default=200, help="of each stage")
    parser.add_argument("--threads", type=int, default=1, help="per model run")
    parser.add_argument("--json", action="store_true")
    add_bundles(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from ..devices.models import DeviceModels, stage_work  # with the extra `edge` alone
    from ..devices.probe import probe
    from ..devices.profile import Profile, load_profile, measure, save_profile
    from ..edge.selftest import golden_picture

    if options.runs < 10 or options.threads < 1:
        raise ConfigError("--runs takes at least 10, --threads at least 1")
    bundle = open_bundle(find_bundle(options.bundle, root=options.bundles), trust=trust(options))
    work = stage_work(DeviceModels(bundle, threads=options.threads), golden_picture(bundle))
    shown = track(work.items(), "timing stages", console=notes, transient=True)
    stages = {name: measure(run, runs=options.runs) for name, run in shown}
    device = probe()
    before = load_profile(bundle.profiles, device, bundle_sha256=bundle.sha256)
    profile = Profile(
        device=device,
        bundle_sha256=bundle.sha256,
        stages={**(before.stages if before else {}), **stages},
    )
    file = save_profile(profile, bundle.profiles)
    if options.json:
        print_json({"file": str(file), "stages": msgspec.to_builtins(stages)})
        return 0
    rows = [
        (name, f"{time.p50_ms:.2f}", f"{time.p95_ms:.2f}", f"{time.p999_ms:.2f}")
        for name, time in stages.items()
    ]
    console.print(table(f"ms per run, {options.runs} runs", ("stage", "p50", "p95", "p99.9"), rows))
    console.print(f"kept in {file}")
    return 0
