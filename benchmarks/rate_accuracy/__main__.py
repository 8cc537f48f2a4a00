"""Bytes against answers, on pictures that no bundle has seen.

For each model a bundle is built with many rates (kept in $HYBRIDGE_HOME), and every cut that it
keeps, with either head and every codec, is run against whole pictures as JPEG, WebP, AVIF, PNG and
(with pillow-jxl-plugin and pyjpegls) JPEG XL and JPEG-LS: real frames, headers and all. Agreement
is with the large model's own answers to the uncompressed pixels. A codec reaches an agreement at
the point from which on all its larger ones do.

--quick measures the bundles that are built already, on a few pictures.

DIR holds natural/, imagenet/ and brain-mri/{train,test}/; see docs/rates.md.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _common import Report, Target, load, machine, parser, progress, run
from rate_accuracy import bottleneck
from rate_accuracy.chart import write_chart
from rate_accuracy.curves import (
    PICTURE,
    Curve,
    Point,
    cheapest,
    curves_of,
    family_of,
    point_of,
)
from rate_accuracy.pairs import (
    PAIRS,
    PICTURE_CODECS,
    TENSOR_CODECS,
    Pair,
    bundle_of,
    held_out,
    is_built,
)
from rate_accuracy.rivals import installed, points
from rate_accuracy.timing import best_ms

from hybridge.cli.console import table
from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.pictures import PictureSet, read_picture
from hybridge.cloud.compiler.table import candidate_plans, measure_table
from hybridge.devices.models import DeviceModels
from hybridge.shared.bundle import Bundle
from hybridge.shared.codec import codec_by_name
from hybridge.shared.frame import decode_payload, encode_frame, read_header
from hybridge.shared.plan import Plan, PlanKind

AGREEMENT = 0.99
FIRST_HALF, LEFT_A_QUARTER = 0.5, 0.75
EARLY_SHARE, LATE_SHARE = 1 / 5, 1 / 8
TENSOR_KB, TENSOR_MS = 64, 3.0
QUICK_PICTURES = 12


def measure(options: argparse.Namespace) -> Report:
    load_before = load()
    named = [name for name in options.models if not options.quick or is_built(PAIRS[name])]
    found = {name: _curves(PAIRS[name], options) for name in named}
    speed_ms = _speed_ms()
    targets = [
        Target.at_most(
            f"encode and decode {TENSOR_KB} KB on one core", speed_ms, unit="ms", bound=TENSOR_MS
        )
    ]
    if "lite2" in found:
        targets += _targets(found["lite2"])
    for name, curves in found.items():
        targets += bottleneck.targets(name, curves)
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
            }
            for name, curves in found.items()
        },
        samples={},
        machine=machine(load_before=load_before),
        notes=_notes(found),
        tables=[_table(name, curves) for name, curves in found.items()],
    )


def _curves(pair: Pair, options: argparse.Namespace) -> list[Curve]:
    most = QUICK_PICTURES if options.quick else options.pictures
    files = held_out(pair, options.data, most=most)
    learned = dict(options.bottleneck).get(pair.model)
    bundle = bundle_of(pair, options.data, bottleneck=learned)
    models, cloud = DeviceModels(bundle, threads=2), CloudSide.open(bundle, threads=2)
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
    ]
    pictures = PictureSet(files=tuple(files), labels=(None,) * len(files), sha256="")
    with progress(pair.model, len(files)) as advance:
        measured = measure_table(
            models, cloud, plans, pictures, on_picture=lambda done, total: advance()
        )
    pixels = models.resize_large(read_picture(files[0]))
    found = [
        point_of(row, **_times(bundle, models, row.parsed(), pixels))
        for row in measured.rows
        if row.parsed().kind is not PlanKind.LOCAL
    ]
    rivals = [rival for rival in installed() if _wanted([rival.name], options.codecs)]
    prepared = [models.resize_large(read_picture(file)) for file in files]
    with progress("rivals", len(rivals)) as advance:
        found += points(rivals, prepared, partial(cloud.answer, Plan.cloud("raw")), advance)
    work = {cut.name: cut.work for cut in bundle.manifest.build.cuts}
    spatial = {
        cut.name: len(cut.contract.shape) == 3 and min(cut.contract.shape[:2]) > 1
        for cut in bundle.manifest.large.cuts
    }
    return curves_of(found, work=work, spatial=spatial)


def _wanted(codecs: Sequence[str], families: Sequence[str] | None) -> list[str]:
    return [codec for codec in codecs if families is None or family_of(codec) in families]


def _times(bundle: Bundle, models: DeviceModels, plan: Plan, pixels: Any) -> dict[str, float]:
    contract = bundle.manifest.contract(plan)
    codec, tensor = codec_by_name(plan.codec, contract), models.tensor(plan, pixels)
    frame = encode_frame(tensor, contract=contract, codec=codec)
    return {
        "encode_ms": best_ms(partial(encode_frame, tensor, contract=contract, codec=codec)),
        "decode_ms": best_ms(lambda: decode_payload(frame, read_header(frame), contract=contract)),
    }


def _speed_ms() -> float:
    """Both ways for int8 [32, 32, 64] of channels with different spreads, smooth in space."""
    from hybridge.cloud.compiler.grid_fit import fit_grids
    from hybridge.shared.codec.channels import ChannelCoder

    random = np.random.default_rng(1)
    noise = random.normal(size=(8, 34, 34, 64)) * np.geomspace(4, 60, 64)
    smooth = (noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) / np.sqrt(3)
    tensors = np.clip(np.rint(smooth), -128, 127).astype(np.int8)
    grids = fit_grids(tensors, sensitivity=np.ones(64), bits=3.0)
    coder = ChannelCoder(grids, tensors.shape[1:])
    payload = coder.encode(tensors[0])
    return best_ms(lambda: coder.encode(tensors[0])) + best_ms(lambda: coder.decode(payload))


def _splits(curves: Sequence[Curve], *, most_work: float) -> list[Curve]:
    return [each for each in curves if each.spatial and each.work <= most_work]


def _pictures(curves: Sequence[Curve]) -> list[Curve]:
    return [curve for curve in curves if curve.where == PICTURE]


def _targets(curves: Sequence[Curve]) -> list[Target]:
    rival = cheapest(_pictures(curves), AGREEMENT)
    made = []
    for name, work, share in (
        ("a cut in the first half of the work", FIRST_HALF, EARLY_SHARE),
        ("a cut that leaves the cloud a quarter of the work", LEFT_A_QUARTER, LATE_SHARE),
    ):
        ours = cheapest(_splits(curves, most_work=work), AGREEMENT)
        if rival is not None and ours is not None:
            value = ours[1].bytes_p50 / rival[1].bytes_p50
            what = f"bytes of {name}, of the best picture codec's, at 99 % agreement"
            made.append(Target.at_most(what, value, unit="x", bound=share))
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
            f"{point.encode_ms:.2f}",
            f"{point.decode_ms:.2f}",
        )
        for curve in ordered
        for point in curve.points
    ]
    heads = ("what crosses", "work %", "codec", "bytes, median", "agreement %", "enc ms", "dec ms")
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


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    made.add_argument("--data", type=Path, required=True, metavar="DIR")
    made.add_argument("--models", nargs="+", choices=sorted(PAIRS), default=["lite2", "vgg16"])
    made.add_argument(
        "--pictures", type=int, metavar="N", help="of those held out; all if not said"
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
    made.add_argument("--charts", type=Path, metavar="FOLDER", help="write a chart per model")
    return run(measure, made.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
