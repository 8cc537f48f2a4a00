import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hybridge.cloud.compiler.sources import open_source
from hybridge.shared.errors import BuildError


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module `owned` as a model's owner would have it."""
    module = ModuleType("owned")
    monkeypatch.setitem(sys.modules, "owned", module)
    return module


def linear(bias: float) -> torch.nn.Module:
    net = torch.nn.Linear(2, 3)
    with torch.no_grad():
        net.weight.fill_(1.0)
        net.bias.fill_(bias)
    return net.eval()


def test_the_digest_is_that_of_the_weights(models: ModuleType) -> None:
    models.one, models.same, models.other = (lambda b=b: linear(b) for b in (1.0, 1.0, 2.0))
    one, same, other = (open_source(f"owned:{name}") for name in ("one", "same", "other"))
    assert one.module is not None
    assert one.sha256 == same.sha256
    assert one.sha256 != other.sha256


def test_a_file_is_read_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"anything")
    source = open_source(str(file))
    assert (source.module, source.file, source.suffix) == (None, file, ".onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.pt", "neither an .onnx"),
        ("nowhere_at_all:make", "nowhere_at_all"),
        ("owned:missing", "missing"),
        ("owned:number", "returned int"),
        ("nowhere.onnx", "cannot read"),
    ],
)
def test_what_is_no_model(models: ModuleType, text: str, said: str) -> None:
    models.number = lambda: 7
    with pytest.raises(BuildError, match=said):
        open_source(text)


def test_nan_weights_are_named(models: ModuleType) -> None:
    models.broken = lambda: linear(float("nan"))
    with pytest.raises(BuildError, match="bias"):
        open_source("owned:broken")
