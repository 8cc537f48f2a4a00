from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from hybridge.devices.probe import probe
from hybridge.report.inspect.facts import Inspection, inspect_bundle
from hybridge.report.inspect.onnx_reading import read_graph
from hybridge.shared.bundle import open_bundle
from hybridge.shared.manifest import Prefix, Rate
from hybridge.shared.signing import SigningKey, TrustStore

from ...inspected import FINE, write_inspected


@pytest.fixture
def report(tmp_path: Path, key: SigningKey, trust: TrustStore) -> Inspection:
    """The tiny bundle, inspected on the machine that timed it."""
    bundle = open_bundle(write_inspected(tmp_path, key), trust=trust)
    graph = read_graph(bundle.read(bundle.manifest.large.whole))
    return inspect_bundle(bundle, graph=graph, here=probe().fingerprint)


@pytest.fixture
def layered(report: Inspection) -> Inspection:
    """The same with the finer split in four layers, of which the first is worth nothing."""
    prefixes = tuple(
        Prefix(
            layers=count, agreement=Rate.of(hits, 150), bytes_p50=40 * count, bytes_p95=45 * count
        )
        for count, hits in ((1, 110), (2, 140), (3, 147))
    )
    manifest = report.bundle.manifest
    table = tuple(
        msgspec.structs.replace(row, prefixes=prefixes) if row.parsed() == FINE else row
        for row in manifest.table
    )
    bundle = dataclasses.replace(
        report.bundle, manifest=msgspec.structs.replace(manifest, table=table)
    )
    return inspect_bundle(
        bundle, graph=report.graph, here=report.machines[0].profile.device.fingerprint
    )
