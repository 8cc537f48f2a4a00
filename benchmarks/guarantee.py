"""Whether a bundle's cascade keeps its promise on pictures that it has never seen.

    python benchmarks/guarantee.py NAME --pictures DIR

Runs the light model and the whole large one on every picture below DIR and looks, for each level,
at the answers that reach the bundle's threshold: how many there are, and how many differ from the
large model's. `bound` is the Clopper-Pearson interval (95 %) of that rate here: where alpha lies
within it, these pictures are too few to say whether the promise is kept. `audited` is what the
audit would have made of all these answers in the order of their hashes.
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import Report, Target, load, machine, parser, progress, run

from hybridge.cli.console import table
from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.pictures import PictureSet, open_pictures, read_picture
from hybridge.devices.models import DeviceModels
from hybridge.edge.audit import Audit
from hybridge.report.inspect.guarantee import certified
from hybridge.shared.agreement import AgreementCurve
from hybridge.shared.binomial import upper_bound
from hybridge.shared.bundle import Bundle, find_bundle, open_bundle
from hybridge.shared.cascade import Refusal, Threshold
from hybridge.shared.errors import ConfigError
from hybridge.shared.paths import Paths
from hybridge.shared.plan import Plan
from hybridge.shared.signing import SigningKey, TrustStore

QUICK_PICTURES = 40


@dataclass(frozen=True, slots=True)
class Pair:
    """What the light model said of one picture."""

    confidence: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """One level here, beside what the bundle promised."""

    alpha: float
    confidence: float
    promised_share: float
    pictures: int
    local: int
    differed: int
    low: float
    high: float
    alarmed_after: int | None

    @property
    def rate(self) -> float:
        return self.differed / self.local if self.local else 0.0

    @property
    def verdict(self) -> str:
        if self.low > self.alpha:
            return "broken"
        return "kept" if self.high <= self.alpha else "too few to say"


def look(threshold: Threshold, pairs: Sequence[Pair]) -> Kept:
    """A threshold on pictures of another time."""
    stand = [pair for pair in pairs if threshold.lets_stand(pair.confidence)]
    differed = sum(not pair.agrees for pair in stand)
    low, high = interval(differed, len(stand))
    audit, alarmed_after = Audit(threshold.level), None
    for number, pair in enumerate(stand, start=1):
        audit.observe(pair.agrees)
        if audit.alarm and alarmed_after is None:
            alarmed_after = number
    return Kept(
        alpha=threshold.level.alpha,
        confidence=threshold.confidence,
        promised_share=threshold.share_local,
        pictures=len(pairs),
        local=len(stand),
        differed=differed,
        low=low,
        high=high,
        alarmed_after=alarmed_after,
    )


def interval(hits: int, samples: int) -> tuple[float, float]:
    """Clopper-Pearson, 95 %.

    >>> interval(0, 0)
    (0.0, 1.0)
    """
    if samples == 0:
        return 0.0, 1.0
    low = 1 - upper_bound(samples - hits, samples, delta=0.025)
    return low, upper_bound(hits, samples, delta=0.025)


def measure_pairs(bundle: Bundle, pictures: PictureSet) -> list[Pair]:
    """Both models on every picture, in the order of their hashes, which nothing depends on."""
    models, cloud = DeviceModels(bundle, threads=2), CloudSide.open(bundle, threads=2)
    files = sorted(pictures.files, key=lambda file: hashlib.sha256(file.read_bytes()).digest())
    pairs = []
    with progress("pictures", len(files)) as advance:
        for file in files:
            picture = read_picture(file)
            light = models.light(models.resize_light(picture))
            large = cloud.answer(Plan.cloud("raw"), models.resize_large(picture))
            pairs.append(Pair(float(light.max()), int(np.argmax(light)) == large))
            advance()
    return pairs


def report(bundle: Bundle, pairs: Sequence[Pair], *, load_before: float) -> Report:
    """Every level that the bundle supports."""
    calibration = bundle.calibration
    if calibration is None:
        raise ConfigError(f"{bundle.path} does not record how sure its light model was")
    levels = certified(calibration)
    found = [look(each, pairs) for each in levels if isinstance(each, Threshold)]
    curve = AgreementCurve.of(calibration)
    expected = sum(curve.at(pair.confidence) for pair in pairs) / len(pairs)
    agreed = sum(pair.agrees for pair in pairs) / len(pairs)
    refused = [
        f"alpha {each.level.alpha:g}: {each}" for each in levels if isinstance(each, Refusal)
    ]
    rows = [
        (
            f"{100 * each.alpha:g} %",
            f"{each.confidence:.6f}",
            f"{100 * each.promised_share:.1f} %",
            f"{100 * each.local / each.pictures:.1f} %",
            f"{each.differed} of {each.local}",
            f"{100 * (1 - each.rate):.2f} %",
            f"{100 * each.low:.1f} to {100 * each.high:.1f} %",
            each.verdict,
            f"alarm after {each.alarmed_after}" if each.alarmed_after else "quiet",
        )
        for each in found
    ]
    columns = (
        "may differ", "confidence", "local, as measured", "local here", "differed", "agreement",
        "bound", "promise", "audited",
    )  # fmt: skip
    figures: dict[str, Any] = {
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "calibration_pictures": len(calibration),
        "pictures": len(pairs),
        "agreement": agreed,
        "agreement_expected": expected,
        "levels": [asdict(each) | {"verdict": each.verdict} for each in found],
        "refused": refused,
    }
    return Report(
        benchmark="guarantee",
        targets=[
            Target.at_most(
                f"differ of those let stand at alpha {each.alpha:g}",
                each.rate,
                unit="share",
                bound=each.alpha,
            )
            for each in found
        ],
        figures=figures,
        samples={"pairs": [[pair.confidence, pair.agrees] for pair in pairs]},
        machine=machine(load_before=load_before),
        notes=[
            f"light and large agree on {agreed:.1%} here; the curve of agreement expected "
            f"{expected:.1%}",
            *refused,
        ],
        tables=[table(f"on {len(pairs)} pictures, measured on {len(calibration)}", columns, rows)],
    )


def measure(options: argparse.Namespace) -> Report:
    """Opens what the options name, and measures."""
    load_before, paths = load(), Paths.from_environment()
    key = SigningKey.load_or_create(paths.signing_key)
    bundle = open_bundle(
        find_bundle(options.bundle, root=paths.bundles),
        trust=TrustStore(frozenset({key.public_hex})),
    )
    pictures = open_pictures(
        options.pictures, labels=None, classes=bundle.manifest.classes, minimum=1
    )
    if options.quick:
        pictures = PictureSet(
            pictures.files[:QUICK_PICTURES], pictures.labels[:QUICK_PICTURES], pictures.sha256
        )
    return report(bundle, measure_pairs(bundle, pictures), load_before=load_before)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__ or "")
    options.add_argument("bundle", metavar="NAME|DIR")
    options.add_argument("--pictures", type=Path, required=True, metavar="DIR")
    return run(measure, options.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
