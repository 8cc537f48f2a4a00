import sys
from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch

from hybridge.cloud.compiler.onnx_source import copy_of
from hybridge.cloud.compiler.sources import open_source
from hybridge.shared.errors import BuildError

from .conftest import Converted
from .pickles import Harmful, harm_done


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
    file = tmp_path / "model.tflite"
    file.write_bytes(b"anything")
    source = open_source(str(file))
    assert (source.module, source.file, source.suffix) == (None, file, ".tflite")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (__file__, "neither an .onnx"),
        ("saved_model", "no file or folder 'saved_model'; check its path"),
        ("nowhere_at_all:make", "nowhere_at_all"),
        ("owned:missing", "missing"),
        ("owned:number", "returned int, not a torch module; return the module"),
        ("nowhere.onnx", "cannot read"),
    ],
)
def test_what_is_no_model(models: ModuleType, text: str, said: str) -> None:
    models.number = lambda: 7
    with pytest.raises(BuildError, match=said):
        open_source(text)


def test_weights_beside_an_onnx_file_are_part_of_its_hash(
    tmp_path: Path, converted: Converted
) -> None:
    file, data = tmp_path / "net.onnx", tmp_path / "net.data"
    onnx.save(
        copy_of(converted.onnx), file, save_as_external_data=True, location=data.name,
        size_threshold=0,
    )  # fmt: skip
    before = open_source(str(file)).sha256
    assert open_source(str(file)).sha256 == before
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    assert open_source(str(file)).sha256 != before


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_pickle_is_never_loaded_unless_allowed(tmp_path: Path, suffix: str) -> None:
    harmful, file = Harmful(tmp_path / "harm"), tmp_path / f"model{suffix}"
    torch.save(harmful, file)
    with pytest.raises(BuildError, match=r"is a pickle.*torch\.export\.save.*allow_pickle = true"):
        open_source(str(file))
    assert not harm_done(harmful)
    with pytest.raises(BuildError, match="not a torch module"):
        open_source(str(file), allow_pickle=True)
    assert harm_done(harmful)


def test_an_allowed_pickle_gives_its_module(tmp_path: Path) -> None:
    torch.save(linear(1.0), tmp_path / "model.pt")
    source = open_source(str(tmp_path / "model.pt"), allow_pickle=True)
    assert isinstance(source.module, torch.nn.Linear)
    torch.save(linear(1.0).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(BuildError, match="weights without a model; name MODULE:FUNCTION"):
        open_source(str(tmp_path / "weights.pt"), allow_pickle=True)


def test_a_function_may_bring_example_inputs(models: ModuleType) -> None:
    models.pair = lambda: (linear(1.0), (torch.zeros(1, 2),))
    models.wrong = lambda: (linear(1.0), ("x",))
    (example,) = open_source("owned:pair").example
    assert example.shape == (1, 2)
    with pytest.raises(BuildError, match="must be a tuple of tensors"):
        open_source("owned:wrong")


def test_nan_weights_are_named(models: ModuleType) -> None:
    models.broken = lambda: linear(float("nan"))
    with pytest.raises(BuildError, match="bias"):
        open_source("owned:broken")
