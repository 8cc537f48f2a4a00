"""Bytes against answers, on pictures that no bundle has seen.

For each model a bundle is built with many rates (kept in $HYBRIDGE_HOME), and every cut that it
keeps, with either head and every codec, is run against whole pictures as JPEG, WebP, AVIF, PNG and
(with the extra `pictures`) JPEG XL and JPEG-LS: real frames, headers and all. Agreement is with
the large model's own answers to the uncompressed pixels. A codec reaches an agreement at the point
from which on all its larger ones do.

--quick measures the bundles that are built already, on a few pictures.

DIR holds natural/, imagenet/ and brain-mri/{train,test}/; see docs/rates.md.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from _common import Report, Target, load, machine, parser, progress, run
from rate_accuracy import bottleneck, jpeg_ls
from rate_accuracy.chart import write_chart
from rate_accuracy.curves import (
    PICTURE,
    Curve,
    Point,
    cheapest,
    curves_of,
    family_of,
)
from rate_accuracy.outcomes import Kept, Key, measure_picture, points
from rate_accuracy.pairs import (
    PAIRS,
    PICTURE_CODECS,
    TENSOR_CODECS,
    Pair,
    bundle_of,
    held_out,
    is_built,
    labels_of,
)
from rate_accuracy.timing import SHARES, TARGETS_MS, best_ms, shares_of_entropy, speeds_ms

from hybridge.cli.console import table
from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.pictures import read_picture
from hybridge.cloud.compiler.table import candidate_plans
from hybridge.devices.models import DeviceModels
from hybridge.shared.bundle import Bundle
from hybridge.shared.codec import codec_by_name
from hybridge.shared.errors import ConfigError
from hybridge.shared.frame import decode_payload, encode_frame, read_header
from hybridge.shared.plan import Plan, PlanKind
from hybridge.shared.tensor import Array

AGREEMENT = 0.99
_HELD = "vgg16"
"""Whose bottleneck has to reach something; those of others are reported where they are given."""
FIRST_HALF, LEFT_A_QUARTER = 0.5, 0.75
EARLY_SHARE, LATE_SHARE = 1 / 5, 1 / 8
QUICK_PICTURES = 12


def measure(options: argparse.Namespace) -> Report:
    load_before = load()
    named = [name for name in options.models if not options.quick or is_built(PAIRS[name])]
    measured = {name: _measured(PAIRS[name], options) for name in named}
    found = {name: each.curves for name, each in measured.items()}
    speeds = speeds_ms()
    targets = [
        Target.at_most(
            f"{codec}: encode and decode 64 KB on one core", sum(times), unit="ms", bound=bound
        )
        for (codec, times), bound in zip(speeds.items(), TARGETS_MS.values(), strict=True)
    ]
    targets += [
        Target.at_most(
            f"{codec}: bytes of a {kind} 64 KB tensor, of its own order-0 entropy",
            share,
            unit="x",
            bound=SHARES[kind],
        )
        for (codec, kind), share in shares_of_entropy().items()
    ]
    targets += _targets(found.get("lite2"))
    for name in {_HELD: None} | measured:
        each = measured.get(name)
        if name == _HELD or (each and bottleneck.own(each.curves)):
            curves, times_ms = (each.curves, each.encoder_ms) if each else (None, {})
            why = "" if each else f"{name} was not measured: --models {name}, without --quick"
            targets += bottleneck.targets(name, curves, times_ms, why=why)
    if options.charts:
        options.charts.mkdir(parents=True, exist_ok=True)
        for name, curves in found.items():
            write_chart(curves, options.charts / f"{name}.svg", title=f"{name}: bytes, agreement")
    return Report(
        benchmark="rate_accuracy",
        targets=targets,
        figures={
            name: {
                "best_at_99": _best(curves),
                "best_at_99_by_fit": _best(curves, by_fit=True),
                "curves": [_curve_json(each) for each in curves],
                "encoder_ms": measured[name].encoder_ms,
            }
            for name, curves in found.items()
        }
        | {"64_kb_ms": {codec: [round(ms, 3) for ms in own] for codec, own in speeds.items()}},
        samples={},
        machine=machine(load_before=load_before),
        notes=[*_notes(found), *_left_out(options.models, named)],
        tables=[_table(name, curves) for name, curves in found.items()],
    )


class _Measured(NamedTuple):
    """A model's curves, and how long each encoder of its bottlenecks takes."""

    curves: list[Curve]
    encoder_ms: dict[str, float]


def _measured(pair: Pair, options: argparse.Namespace) -> _Measured:
    most = QUICK_PICTURES if options.quick else options.pictures
    files = held_out(pair, options.data, most=most)
    learned = dict(options.bottleneck).get(pair.model)
    bundle = bundle_of(pair, options.data, bottleneck=learned)
    threads = options.threads
    models = DeviceModels(bundle, threads=threads)
    cloud = CloudSide.open(bundle, threads=threads)
    _refuse_unknown(options, bundle)
    candidates = candidate_plans(
        bundle.manifest,
        picture_codecs=_wanted(PICTURE_CODECS, options.codecs),
        tensor_codecs=_wanted(TENSOR_CODECS, options.codecs),
    )
    cuts = options.cuts
    plans = [
        plan
        for plan in candidates
        if not plan.cut or cuts is None or plan.cut.startswith(tuple(cuts))
        if not plan.cut or _is_known(bundle, plan)
    ]
    labels = labels_of(files, bundle.labels)
    kept = Kept(bundle.path.parents[2] / "rate_accuracy" / pair.model / f"{bundle.sha256}.jsonl")
    keys = [Key.of(plan) for plan in plans if plan.kind is not PlanKind.LOCAL]
    outcomes = []
    with progress(pair.model, len(files)) as advance:
        for file, label in zip(files, labels, strict=True):
            found = measure_picture(
                models, cloud, file, label, plans=plans, known=kept.of(file.name)
            )
            if found:
                kept.add(file.name, found)
            outcomes += [kept.of(file.name)[key] for key in keys]
            advance()
    resized = [models.resize_large(read_picture(file)) for file in files]
    times = {
        Key.of(plan): _times(bundle, models, plan, resized[0])
        for plan in plans
        if plan.kind is not PlanKind.LOCAL
    }
    work = {cut.name: cut.work for cut in bundle.manifest.build.cuts}
    spatial = {
        cut.name: len(cut.contract.shape) == 3 and min(cut.contract.shape[:2]) > 1
        for cut in bundle.manifest.large.cuts
    }
    measured = [*points(outcomes, times)]
    encoders = bottleneck.encoder_ms(bundle, resized[0])
    if _wanted((jpeg_ls.NAME,), options.codecs):
        measured += jpeg_ls.points(resized, header_bytes=_header_bytes(bundle, resized[0]))
    return _Measured(curves_of(measured, work=work, spatial=spatial), encoders)


def _header_bytes(bundle: Bundle, pixels: Array) -> int:
    """Of a frame with a picture."""
    contract = bundle.manifest.contract(Plan.cloud("raw"))
    codec = codec_by_name("raw", contract)
    return len(encode_frame(pixels, contract=contract, codec=codec)) - pixels.nbytes


def _refuse_unknown(options: argparse.Namespace, bundle: Bundle) -> None:
    """ConfigError for a cut or a family of codecs that there is not: it would measure nothing."""
    names = [cut.name for cut in bundle.manifest.large.cuts]
    families = {family_of(codec) for codec in (*PICTURE_CODECS, jpeg_ls.NAME, *TENSOR_CODECS)}
    for cut in options.cuts or ():
        if not any(name.startswith(cut) for name in names):
            raise ConfigError(f"--cuts {cut}: {bundle.manifest.name} has {', '.join(names)}")
    for family in options.codecs or ():
        if family not in families:
            raise ConfigError(f"--codecs {family}: known are {', '.join(sorted(families))}")


def _wanted(codecs: Sequence[str], families: Sequence[str] | None) -> list[str]:
    return [codec for codec in codecs if families is None or family_of(codec) in families]


def _is_known(bundle: Bundle, plan: Plan) -> bool:
    """Whether a bundle, which may be older than our list of codecs, has what a plan's needs."""
    try:
        codec_by_name(plan.codec, bundle.manifest.contract(plan))
    except ValueError:
        return False
    return True


def _times(bundle: Bundle, models: DeviceModels, plan: Plan, pixels: Any) -> tuple[float, float]:
    """Milliseconds to encode and to decode."""
    contract = bundle.manifest.contract(plan)
    codec, tensor = codec_by_name(plan.codec, contract), models.tensor(plan, pixels)
    frame = encode_frame(tensor, contract=contract, codec=codec)
    return (
        best_ms(partial(encode_frame, tensor, contract=contract, codec=codec)),
        best_ms(lambda: decode_payload(frame, read_header(frame), contract=contract)),
    )


def _splits(curves: Sequence[Curve], *, most_work: float) -> list[Curve]:
    return [each for each in curves if each.spatial and each.work <= most_work]


def _pictures(curves: Sequence[Curve]) -> list[Curve]:
    return [curve for curve in curves if curve.where == PICTURE]


def _targets(curves: Sequence[Curve] | None) -> list[Target]:
    """Of EfficientNet-Lite2; None where it was not measured."""
    rival = cheapest(_pictures(curves or ()), AGREEMENT)
    made = []
    for name, work, share in (
        ("a cut in the first half of the work", FIRST_HALF, EARLY_SHARE),
        ("a cut that leaves the cloud a quarter of the work", LEFT_A_QUARTER, LATE_SHARE),
    ):
        what = f"bytes of {name}, of the best picture codec's, at 99 % agreement"
        splits = _splits(curves or (), most_work=work)
        ours = cheapest(splits, AGREEMENT)
        if rival is not None and ours is not None:
            value = ours[1].bytes_p50 / rival[1].bytes_p50
            against = (
                f"{ours[1].codec} {ours[1].bytes_p50:,}, {rival[1].codec} {rival[1].bytes_p50:,}"
            )
            made.append(Target.at_most(what, value, unit="x", bound=share, note=against))
        elif rival is not None and splits:
            never = "no rate of such a cut reaches 99 % and stays there"
            made.append(Target(what, None, "x", share, holds=False, note=never))
        else:
            why = "no such cut and picture codec were measured (--cuts, --codecs)"
            if curves is None:
                why = "lite2 was not measured: --models lite2, without --quick"
            made.append(Target.not_measured(what, unit="x", bound=share, why=why))
    return made


def _best(curves: Sequence[Curve], *, by_fit: bool = False) -> dict[str, Any]:
    named = {
        "picture": _pictures(curves),
        "first_half": _splits(curves, most_work=FIRST_HALF),
        "a_quarter_left": _splits(curves, most_work=LEFT_A_QUARTER),
        "bottleneck": bottleneck.own(curves),
    }
    return {
        name: _found_json(cheapest(those, AGREEMENT, by_fit=by_fit))
        for name, those in named.items()
    }


def _found_json(found: tuple[Curve, Point] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    curve, point = found
    return {
        "where": curve.where,
        "codec": point.codec,
        "bytes_p50": point.bytes_p50,
        "agreement": round(point.agreement, 4),
    }


def _curve_json(curve: Curve) -> dict[str, Any]:
    return {
        "where": curve.where,
        "family": curve.family,
        "work": curve.work,
        "spatial": curve.spatial,
        "points": [
            {
                "codec": point.codec,
                "bytes_p50": point.bytes_p50,
                "agreement": round(point.agreement, 4),
                "accuracy": point.accuracy and round(point.accuracy, 4),
                "encode_ms": round(point.encode_ms, 3),
                "decode_ms": round(point.decode_ms, 3),
            }
            for point in curve.points
        ],
    }


def _table(name: str, curves: Sequence[Curve]) -> Any:
    ordered = sorted(curves, key=lambda curve: (curve.where != PICTURE, curve.work, curve.where))
    rows = [
        (
            curve.where,
            "" if curve.where == PICTURE else f"{100 * curve.work:.0f}",
            point.codec,
            f"{point.bytes_p50:,}",
            f"{100 * point.agreement:.1f}",
            "" if point.accuracy is None else f"{100 * point.accuracy:.1f}",
            f"{point.encode_ms:.2f}",
            f"{point.decode_ms:.2f}",
        )
        for curve in ordered
        for point in curve.points
    ]
    heads = (
        "what crosses",
        "work %",
        "codec",
        "bytes, median",
        "agreement %",
        "accuracy %",
        "enc ms",
        "dec ms",
    )
    return table(f"{name}, {curves[0].points[0].pictures} held-out pictures", heads, rows)


def _notes(found: dict[str, list[Curve]]) -> list[str]:
    notes = ["work is the share of multiply-adds before the cut; times are processor time"]
    for name, curves in found.items():
        for by_fit, how in ((False, ""), (True, ", by the isotonic fit")):
            best = _best(curves, by_fit=by_fit)
            said = [
                f"{what} {each['where']} {each['codec']} {each['bytes_p50']:,} bytes"
                for what, each in best.items()
                if each is not None
            ]
            notes.append(f"{name} at 99 %{how}: {'; '.join(said)}")
    return notes


def _left_out(wanted: Sequence[str], named: Sequence[str]) -> list[str]:
    missing = [name for name in wanted if name not in named]
    return [
        f"{name} is left out: its bundle is not built yet (without --quick)" for name in missing
    ]


def _positive(text: str) -> int:
    """A whole number from 1 on, as an option has it."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: 1 or more are possible")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    made.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="of pictures, as said above"
    )
    made.add_argument(
        "--models",
        nargs="+",
        choices=sorted(PAIRS),
        default=["lite2", "vgg16"],
        help="lite2 and vgg16 if not said",
    )
    made.add_argument(
        "--pictures", type=_positive, metavar="N", help="of those held out; all if not said"
    )
    made.add_argument("--cuts", nargs="+", metavar="NAME", help="whose names begin so; all else")
    made.add_argument(
        "--codecs", nargs="+", metavar="FAMILY", help="such as klt, rans, jpeg, jxl; all else"
    )
    made.add_argument(
        "--bottleneck",
        type=bottleneck.of_a_model,
        nargs="+",
        default=[],
        metavar="MODEL=FILE",
        help="made by `hybridge compress` for a model",
    )
    made.add_argument("--threads", type=_positive, default=2, metavar="N", help="of every model; 2")
    made.add_argument("--charts", type=Path, metavar="FOLDER", help="write a chart per model")
    return run(measure, made.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
