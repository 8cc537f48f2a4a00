"""Exported programs are data: what torch would execute while it loads one never gets that far."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybridge.cloud.compiler.conversion import LITERT_TORCH, routes_of, take_route, to_onnx
from hybridge.cloud.compiler.exported import read_program
from hybridge.cloud.compiler.litert import run_module
from hybridge.cloud.compiler.sources import open_source
from hybridge.shared.errors import BuildError

from .conftest import SHAPE, make_net, make_tensors
from .graphs import run
from .pickles import Harmful, harm_done

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "net.pt2"
    exported = torch.export.export(
        make_net(),
        (torch.zeros(2, 3, *SHAPE[:2]),),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    torch.export.save(exported, file)
    return file


def changed(program: Path, folder: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """The program with one member changed, or added if it is not there."""
    file = folder / "changed.pt2"
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(file, "w") as target:
        names = {name.partition("/")[2]: name for name in source.namelist()}
        for inner, name in names.items():
            content = source.read(name)
            target.writestr(name, change(content) if inner == member else content)
        if member not in names:
            target.writestr(f"net/{member}", change(b""))
    return file


def with_model(program: Path, folder: Path, change: Change) -> Path:
    def rewrite(content: bytes) -> bytes:
        model = json.loads(content)
        change(model)
        return json.dumps(model).encode()

    return changed(program, folder, "models/model.json", rewrite)


def test_a_program_answers_as_its_module(program: Path) -> None:
    source = open_source(str(program))
    assert source.module is not None
    (tensor,) = make_tensors(1)
    wanted = run_module(make_net())(tensor)[0]
    np.testing.assert_allclose(run_module(source.module)(tensor)[0], wanted, atol=1e-6)
    batch = np.concatenate(make_tensors(3)).transpose(0, 3, 1, 2)
    assert run(to_onnx(source, shape=SHAPE), batch).shape == (3, 5)


def test_a_program_goes_straight_to_litert(program: Path) -> None:
    source, tensors = open_source(str(program)), make_tensors(2)
    routes = routes_of(source, tensors, lambda: to_onnx(source, shape=SHAPE))
    conversion = take_route(routes, tensors, what="large").conversion
    assert (conversion.route, conversion.failed) == (LITERT_TORCH, {})
    assert 0 < conversion.error < 1e-5


def test_a_program_of_one_picture_becomes_one_of_any_number(tmp_path: Path) -> None:
    file = tmp_path / "one.pt2"
    torch.export.save(torch.export.export(make_net(), (torch.zeros(1, 3, 16, 16),)), file)
    batch = np.concatenate(make_tensors(2)).transpose(0, 3, 1, 2)
    assert run(to_onnx(open_source(str(file)), shape=SHAPE), batch).shape == (2, 5)


@pytest.mark.parametrize(
    "member",
    ["data/sample_inputs/model.pt", "data/constants/opaque_obj_0", "data/weights/model.pt"],
)
def test_a_pickle_inside_is_never_loaded(program: Path, tmp_path: Path, member: str) -> None:
    harmful = Harmful(tmp_path / "harm")
    file = changed(program, tmp_path, member, lambda _: pickle.dumps(harmful))
    if "sample_inputs" in member:
        read_program(file)  # a model needs none, so that none is read
    else:
        with pytest.raises(BuildError, match=rf"changed\.pt2 holds '{member}'.*may execute"):
            read_program(file)
    assert not harm_done(harmful)


def test_weights_marked_as_pickles_are_refused(program: Path, tmp_path: Path) -> None:
    def mark(content: bytes) -> bytes:
        config = json.loads(content)
        next(iter(config["config"].values()))["use_pickle"] = True
        return json.dumps(config).encode()

    file = changed(program, tmp_path, "data/weights/model_weights_config.json", mark)
    with pytest.raises(BuildError, match="holds a pickle, 'weight_0'"):
        read_program(file)


def test_sizes_and_guards_are_not_run_as_python(program: Path, tmp_path: Path) -> None:
    harmful = Harmful(tmp_path / "harm")
    code = f"__import__('pathlib').Path({str(harmful.file)!r}).touch()"

    def size(model: dict[str, Any]) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        next(iter(values.values()))["sizes"][0] = {"as_expr": {"expr_str": code, "hint": None}}

    with pytest.raises(BuildError, match=r"holds the size .__import__"):
        read_program(with_model(program, tmp_path, size))
    read_program(with_model(program, tmp_path, lambda model: model.update(guards_code=[code])))
    assert not harm_done(harmful)


@pytest.mark.parametrize("target", ["torch.load", "torch.hub.load", "torch.ops.aten"])
def test_only_tensor_operators_are_taken(program: Path, tmp_path: Path, target: str) -> None:
    def call(model: dict[str, Any]) -> None:
        model["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(BuildError, match=f"operator {target} is not one of torch's own"):
        read_program(with_model(program, tmp_path, call))


def test_outputs_import_nothing(program: Path, tmp_path: Path) -> None:
    def name(model: dict[str, Any]) -> None:
        signature = model["graph_module"]["module_call_graph"][0]["signature"]
        context = {"default_factory_module": "antigravity", "default_factory_name": "x"}
        tree = {"type": "collections.defaultdict", "context": json.dumps(context)}
        signature["out_spec"] = json.dumps([1, tree])

    with pytest.raises(BuildError, match=r"an output of type collections.defaultdict"):
        read_program(with_model(program, tmp_path, name))


def test_a_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.Dropout(), torch.nn.Flatten())
    file = tmp_path / "training.pt2"
    torch.export.save(torch.export.export(net.train(), (torch.zeros(1, 3, 4, 4),)), file)
    with pytest.raises(BuildError, match=r"training mode \(torch.ops.aten.dropout.default\)"):
        read_program(file)


def test_what_is_no_program(tmp_path: Path) -> None:
    file = tmp_path / "text.pt2"
    file.write_text("no archive")
    with pytest.raises(BuildError, match=r"text\.pt2 is no exported program"):
        read_program(file)
