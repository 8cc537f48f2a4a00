"""A tiny bundle with a table, a build record and a profile, for reports; no compiler made it.

whole:  pixels -> Cast -> Div -> Transpose -> Conv -> Relu (cut) -> Flatten -> MatMul -> logits
"""

import dataclasses
import hashlib
from pathlib import Path

import msgspec

from hybridge.devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, encode_stage, head_stage
from hybridge.devices.probe import probe
from hybridge.devices.profile import Profile, StageTime, save_profile, tail_stage
from hybridge.shared.calibration import Calibration, encode_calibration
from hybridge.shared.manifest import (
    Blob,
    BuildRecord,
    Conversion,
    CutRecord,
    Manifest,
    PlanRow,
    Precision,
    Quantized,
    Rate,
    decode_manifest,
    encode_manifest,
)
from hybridge.shared.plan import Plan
from hybridge.shared.signing import SigningKey

from .cloud.bundles import CUT, write_bundle

NAME = "tiny"
LOCAL = Plan.local()
COARSE, FINE = (Plan.split(CUT, head="int8", codec=f"affine{bits}") for bits in (3, 8))
JPEG, RAW = Plan.cloud("jpeg-90"), Plan.cloud("raw")
ROWS = {LOCAL: (120, 0), COARSE: (140, 90), FINE: (148, 170), JPEG: (146, 400), RAW: (150, 800)}
"""Hits of 150 and bytes, by plan."""
MS = {RESIZE_LIGHT: 1.0, LIGHT: 4.0, RESIZE_LARGE: 2.0, head_stage(CUT, "int8"): 6.0}
BUILD = BuildRecord(
    conversions={
        "light": Conversion(route="torch", error=2e-6, pictures=4),
        "large": Conversion(
            route="onnx", error=1e-6, pictures=4, ended_by="NonZero", failed={"keras": "no <b>"}
        ),
    },
    quantized=(
        Quantized(
            part="large",
            precision=Precision.INT8,
            method="static/min_max",
            bytes=5_300,
            agreement=Rate.of(145, 150),
            accuracy=Rate.of(130, 150),
            kept_float=("HARD_SWISH",),
            chosen=True,
            float_bytes=21_200,
            float_accuracy=Rate.of(132, 150),
        ),
    ),
    cuts=(
        CutRecord(
            name="early",
            tensors=("conv",),
            shapes=((8, 4, 4),),
            work=0.9,
            error=1e-7,
            fate="no fewer bytes than a later cut",
            int8_agreement=0.97,
        ),
        CutRecord(
            name=CUT, tensors=("features",), shapes=((8, 4, 4),), work=0.9, error=1e-7, fate="kept"
        ),
    ),
)


CALIBRATION = Calibration(
    agreed=tuple((500 + at) / 1000 for at in range(400)), differed=tuple([0.5] * 15 + [0.7] * 5)
)
"""The most confident 200 all agree: 2 % may differ there, 1 % cannot be shown."""


def with_table(manifest: Manifest) -> Manifest:
    """The tiny manifest with a measured table and a cut at a tensor of its graph."""
    cut = manifest.large.cuts[0]
    contract = dataclasses.replace(cut.contract, tensor="features")
    table = tuple(
        PlanRow(
            plan=str(plan),
            agreement=Rate.of(hits, 150),
            accuracy=Rate.of(hits - 10, 150),
            bytes_p50=size,
            bytes_p95=size + size // 10,
        )
        for plan, (hits, size) in ROWS.items()
    )
    cut = msgspec.structs.replace(cut, contract=contract)
    large = msgspec.structs.replace(manifest.large, cuts=(cut,))
    encoded = encode_calibration(CALIBRATION)
    blob = Blob(sha256=hashlib.sha256(encoded).hexdigest(), bytes=len(encoded))
    light = msgspec.structs.replace(manifest.light, calibration=blob)
    return msgspec.structs.replace(manifest, light=light, large=large, table=table, build=BUILD)


def write_inspected(root: Path, key: SigningKey, *, timed: bool = True) -> Path:
    """ROOT/tiny/1, signed, with this machine's profile."""
    path = write_bundle(root, key=key)
    encoded = encode_manifest(with_table(decode_manifest((path / "manifest.json").read_bytes())))
    calibration = encode_calibration(CALIBRATION)
    (path / "blobs" / hashlib.sha256(calibration).hexdigest()).write_bytes(calibration)
    (path / "manifest.json").write_bytes(encoded)
    (path / "manifest.sig").write_bytes(key.sign(encoded))
    if timed:
        save_profile(profile(hashlib.sha256(encoded).hexdigest()), path / "profiles")
    return path


def profile(bundle_sha256: str) -> Profile:
    """This machine's, with the cloud's part, and comparable with boards."""
    ms = MS | {encode_stage(plan): 1.0 for plan in ROWS if plan != LOCAL}
    ms |= {tail_stage(CUT): 3.0, tail_stage(""): 20.0}
    return Profile(
        device=probe(),
        bundle_sha256=bundle_sha256,
        stages={
            name: StageTime(p50_ms=0.8 * each, p95_ms=each, p999_ms=2 * each, runs=50)
            for name, each in ms.items()
        },
        yardstick_ms={"int8": 0.3, "float": 0.5, "general": 1.2},
    )
