"""`hybridge inspect`: what a bundle is, what it would do on a link, and a page that shows it."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from ..devices.probe import probe
from ..report.inspect.as_json import as_json
from ..report.inspect.facts import Inspection, inspect_bundle
from ..report.inspect.machines import Link, Machine, pick
from ..report.inspect.terminal import show
from ..shared.bundle import Bundle, find_bundle, open_bundle
from ..shared.deadline import check_budget_ms
from ..shared.errors import ConfigError
from ..shared.privacy import read_privacy
from ..shared.signing import TrustStore
from .console import console, notes, print_json
from .options import add_bundles, trust
from .plan import LINKS


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "inspect",
        help="show all that is known of a bundle, in the terminal or as a page",
        description="Device times are p95 of the machine chosen with --machine (this one, where it "
        "has a profile); cloud times are those of the machine that built the bundle, divided by "
        "--cloud-speed.",
    )
    parser.add_argument("bundle", metavar="NAME|DIR")
    parser.add_argument("--budget", type=float, default=None, metavar="MS")
    parser.add_argument(
        "--link",
        type=parse_link,
        default=Link(*LINKS["lte"]),
        metavar="RTT_MS,MBIT_S",
        help=f"what if the link were this: two figures, or {', '.join(LINKS)} (lte)",
    )
    parser.add_argument("--machine", default="", metavar="NAME", help="part of its name, or key")
    parser.add_argument("--cloud-speed", type=float, default=1.0, metavar="FACTOR")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as one page")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    add_bundles(parser)
    parser.set_defaults(run=run)


def parse_link(text: str) -> Link:
    """A link by name, or as `RTT_MS,MBIT_S`."""
    if text in LINKS:
        return Link(*LINKS[text])
    rtt_ms, _, mbps = text.partition(",")
    try:
        return Link(float(rtt_ms), float(mbps))
    except (ValueError, ConfigError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no link; give a round trip and a throughput above 0 as RTT_MS,MBIT_S, "
            f"such as 20,50, or one of {', '.join(LINKS)}"
        ) from None


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    trusted = trust(options)
    bundle = open_bundle(find_bundle(options.bundle, root=options.bundles), trust=trusted)
    default_ms = bundle.manifest.default_budget_ms
    budget_ms = check_budget_ms(default_ms if options.budget is None else options.budget)
    if not 0 < options.cloud_speed < float("inf"):
        raise ConfigError("--cloud-speed must be above 0")
    report = _inspection(bundle, trusted, needs_graph=options.html is not None)
    machine = _machine(report, options.machine)
    if options.json:
        print_json(
            as_json(
                report,
                machine=machine,
                link=options.link,
                budget_ms=budget_ms,
                cloud_speed=options.cloud_speed,
            )
        )
    if options.html is not None:
        _write_page(options.html, report, machine, options, budget_ms)
    elif not options.json:
        for shown in show(
            report,
            machine=machine,
            link=options.link,
            budget_ms=budget_ms,
            cloud_speed=options.cloud_speed,
        ):
            console.print(shown)
    return 0


def _inspection(bundle: Bundle, trusted: TrustStore, *, needs_graph: bool) -> Inspection:
    """With the large model's graph where onnx is installed; a page cannot do without."""
    graph = None
    if needs_graph or find_spec("onnx"):
        from ..report.inspect.onnx_reading import read_graph  # heavy, and of the extra `build`

        graph = read_graph(bundle.read(bundle.manifest.large.whole))
    privacy = read_privacy(bundle, trust=trusted)
    return inspect_bundle(bundle, graph=graph, here=probe().fingerprint, privacy=privacy)


def _machine(report: Inspection, wanted: str) -> Machine | None:
    """The machine whose times are shown; None if nobody has measured any and none is named."""
    return pick(report.machines, wanted) if report.machines or wanted else None


def _write_page(
    file: Path,
    report: Inspection,
    machine: Machine | None,
    options: argparse.Namespace,
    budget_ms: float,
) -> None:
    from ..report.inspect.page import render  # jinja2: with the extra `build`

    page = render(
        report,
        machine=machine,
        link=options.link,
        budget_ms=budget_ms,
        cloud_speed=options.cloud_speed,
        links={name: Link(*figures) for name, figures in LINKS.items()},
    )
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error
    notes.print(f"page: {file}", soft_wrap=True)
