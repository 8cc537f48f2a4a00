from __future__ import annotations

from pathlib import Path

import pytest

from hybridge.devices.probe import probe
from hybridge.report.inspect.facts import Inspection, inspect_bundle
from hybridge.report.inspect.onnx_reading import read_graph
from hybridge.shared.bundle import open_bundle
from hybridge.shared.signing import SigningKey, TrustStore

from ...inspected import write_inspected


@pytest.fixture
def report(tmp_path: Path, key: SigningKey, trust: TrustStore) -> Inspection:
    """The tiny bundle, inspected on the machine that timed it."""
    bundle = open_bundle(write_inspected(tmp_path, key), trust=trust)
    graph = read_graph(bundle.read(bundle.manifest.large.whole))
    return inspect_bundle(bundle, graph=graph, here=probe().fingerprint)
