"""`hybridge plan`: which plan would be taken on a given link and budget, and why."""

import argparse
from math import inf, isfinite

from ..devices.boards import read_board
from ..devices.probe import probe
from ..devices.profile import Origin, Profile, load_profile, load_profiles
from ..edge.agent import assurance_of
from ..edge.assurance import Assurance
from ..edge.demand import Demand
from ..edge.outlook import ALL_FORMATS
from ..edge.question import Question
from ..edge.router import Option, explain
from ..report.inspect.machines import Link, Machine, cloud_of, options_on
from ..report.words import NOTHING
from ..shared.bundle import Bundle, find_bundle, open_bundle
from ..shared.codec.picture import formats_here
from ..shared.deadline import check_budget_ms
from ..shared.errors import ConfigError
from ..shared.objective import Objective
from ..shared.privacy import read_privacy
from .boards import estimated
from .console import console, print_json, table
from .options import add_bundles, add_objective, trust
from .prices import add_prices, prices_of

LINKS = {
    "ethernet": (1.0, 940.0),
    "wifi": (8.5, 52.0),
    "lte": (51.0, 11.4),
    "3g": (151.0, 1.5),
}
"""Round trip in ms and throughput in Mbit/s, as measured through an emulator."""


_UNITS = {Objective.ENERGY: "joules", Objective.COST: "cost"}


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "plan",
        help="show a bundle's table on a link and budget: which plan is taken, and why",
        description="Device times are this machine's profile, or an estimate for a board (see "
        "`hybridge profile --boards`); cloud times are those of the machine "
        "that built the bundle, divided by --cloud-speed.",
    )
    parser.add_argument("bundle", metavar="NAME|DIR")
    parser.add_argument("--budget", type=float, default=None, metavar="MS")
    parser.add_argument("--link", choices=LINKS, default="lte")
    parser.add_argument("--rtt", type=float, metavar="MS", help="instead of the link's")
    parser.add_argument("--mbps", type=float, metavar="MBIT/S", help="instead of the link's")
    parser.add_argument("--cloud-speed", type=float, default=1.0, metavar="FACTOR")
    add_objective(parser)
    parser.add_argument(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help="an answer that agrees with the large model so often is good enough, such as 0.98 "
        "(default: the bundle's; 0.98 for other objectives than accuracy)",
    )
    parser.add_argument(
        "--bytes-per-hour", type=float, default=inf, metavar="N", help="of which none is used yet"
    )
    parser.add_argument("--stay-local", action="store_true", help="nothing leaves the device")
    parser.add_argument("--only-cuts", action="store_true", help="no picture leaves the device")
    parser.add_argument(
        "--max-similarity",
        type=float,
        default=1.0,
        metavar="SSIM",
        help="of pictures that could be rebuilt from what is sent, as far as measured",
    )
    parser.add_argument("--threads", type=int, default=1, help="per model run on the device")
    parser.add_argument(
        "--board", metavar="NAME", help="estimate for a board instead of this machine's profile"
    )
    parser.add_argument("--json", action="store_true")
    add_prices(parser.add_argument_group("what things cost, for the objectives energy and cost"))
    add_bundles(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    trusted = trust(options)
    bundle = open_bundle(find_bundle(options.bundle, root=options.bundles), trust=trusted)
    rtt_ms, mbps = LINKS[options.link]
    rtt_ms = rtt_ms if options.rtt is None else options.rtt
    mbps = mbps if options.mbps is None else options.mbps
    if not 0 < options.cloud_speed < inf:
        raise ConfigError("--cloud-speed must be above 0")
    link = Link(rtt_ms, mbps)
    default_ms = bundle.manifest.default_budget_ms
    budget_ms = check_budget_ms(default_ms if options.budget is None else options.budget)
    profile = _profile(bundle, board=options.board, threads=options.threads)
    profiles = load_profiles(bundle.profiles, bundle_sha256=bundle.sha256)
    cloud = cloud_of([Machine(each.device.fingerprint, each) for each in profiles])
    machine = Machine(profile.device.fingerprint, profile)
    shown = options_on(
        bundle.manifest,
        machine,
        cloud=cloud,
        link=link,
        cloud_speed=options.cloud_speed,
        privacy=read_privacy(bundle, trust=trusted),
        prices=prices_of(options),
        formats=ALL_FORMATS if options.board is not None else formats_here(),
    )
    demand = _demand(options, bundle)
    if unpriced := prices_of(options).missing(demand.objective):
        raise ConfigError(unpriced)
    assurance = assurance_of(bundle)
    share = assurance.share_enough(demand.enough)
    rows = explain(shown, Question(left_ms=budget_ms, demand=demand, sure_share=share))
    stands = "" if demand.enough is None else assurance.refusal(demand.enough)
    if options.json:
        print_json(
            {
                "bundle": bundle.manifest.name,
                "version": bundle.manifest.version,
                "budget_ms": budget_ms,
                "rtt_ms": rtt_ms,
                "mbps": mbps,
                "device": profile.device.processor,
                "device_times": profile.origin.value,
                "objective": str(demand.objective),
                "min_agreement": demand.enough,
                "bytes_per_hour": _finite(demand.bytes_per_hour),
                "light_threshold": _threshold(assurance, demand),
                "light_stands": share,
                "light_refusal": stands,
                "plans": [_as_json(option, reason) for option, reason in rows],
            }
        )
        return 0
    title = f"{bundle.manifest.name}: {budget_ms:g} ms on {rtt_ms:g} ms / {mbps:g} Mbit/s"
    columns = ["plan", "agreement", "bytes", "device", "network", "cloud", "total ms", "why"]
    if demand.objective in _UNITS:
        columns.insert(-1, _UNITS[demand.objective])
    lines = [_row(option, reason, demand.objective) for option, reason in rows]
    console.print(table(title, columns, lines))
    if demand.enough is not None:
        console.print(_cascade(assurance, demand, share, stands))
    if profile.origin is Origin.ESTIMATED:
        console.print(f"device times are ESTIMATED for a {profile.device.processor}")
    return 0


def _profile(bundle: Bundle, *, board: str | None, threads: int) -> Profile:
    """The board's estimate, or this machine's profile; ConfigError if it was never measured."""
    if board is not None:
        return estimated(bundle, read_board(board))
    found = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256, threads=threads)
    if found is None:
        with_threads = f" --threads {threads}" if threads > 1 else ""
        raise ConfigError(
            "this machine has no profile of the bundle; "
            f"run `hybridge profile {bundle.path}{with_threads}`"
        )
    return found


def _demand(options: argparse.Namespace, bundle: Bundle) -> Demand:
    manifest, least = bundle.manifest, options.min_agreement
    return Demand(
        objective=Objective(options.objective) if options.objective else manifest.objective,
        min_agreement=manifest.min_agreement if least is None else least,
        stay=options.stay_local,
        only_cuts=options.only_cuts,
        max_similarity=options.max_similarity,
        bytes_per_hour=options.bytes_per_hour,
    )


def _threshold(assurance: Assurance, demand: Demand) -> float | None:
    return None if demand.enough is None else assurance.least_confidence(demand.enough)


def _cascade(assurance: Assurance, demand: Demand, share: float, refusal: str) -> str:
    """What becomes of the light model's answer, which is asked before or beside the plan."""
    if refusal:
        return f"no answer of the light model stands by itself: {refusal}"
    confidence = _threshold(assurance, demand)
    return (
        f"answers of the light model at least {confidence:.4g} sure stand by themselves, about "
        f"{share:.0%} of them: {demand.enough:.4g} agreement is guaranteed there"
    )


def _row(option: Option, reason: str, objective: Objective) -> tuple[str, ...]:
    rate = option.agreement
    extra = {Objective.ENERGY: option.energy_j, Objective.COST: option.cost}.get(objective)
    return (
        str(option.plan),
        f"{rate.value:.1%} ± {rate.standard_error:.1%}",
        f"{option.size_bytes:,}",
        *(_ms(ms) for ms in (option.device_ms, option.network_ms, option.cloud_ms)),
        _ms(option.total_ms),
        *(() if extra is None else (f"{extra:.3g}",)),
        reason,
    )


def _ms(value: float) -> str:
    return f"{value:.1f}" if isfinite(value) else NOTHING


def _as_json(option: Option, reason: str) -> dict[str, object]:
    return {
        "plan": str(option.plan),
        "agreement": option.agreement.value,
        "standard_error": option.agreement.standard_error,
        "bytes": option.size_bytes,
        "device_ms": _finite(option.device_ms),
        "network_ms": _finite(option.network_ms),
        "cloud_ms": _finite(option.cloud_ms),
        "total_ms": _finite(option.total_ms),
        "similarity": option.similarity,
        "energy_j": _finite(option.energy_j),
        "cost": _finite(option.cost),
        "reason": reason,
    }


def _finite(ms: float) -> float | None:
    """JSON knows no infinity; null stands for a time nobody measured."""
    return ms if isfinite(ms) else None
