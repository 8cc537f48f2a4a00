"""torch.export programs (.pt2) read as data, although torch's own loader executes what they say.

That loader unpickles sample inputs, constants and some weights, evaluates symbolic sizes and guards
as Python, imports what a tree of outputs names, and takes any function of torch for an operator. So
the archive is checked and written anew without what a model does not need, and only that is loaded.
"""

import ast
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...shared.errors import BuildError
from .quiet import quiet

if TYPE_CHECKING:
    import torch

_MODEL = re.compile(r"models/[^/]+\.json")
_CONFIG = re.compile(r"data/(weights|constants)/[^/]+_config\.json")
_SAMPLES = re.compile(r"data/sample_inputs/[^/]+\.pt")
_DATA = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder"
    r"|\.data/[a-z_]+|\.format_version|\.storage_alignment|version"
)
_OPERATORS = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod)")
_TREES = frozenset(
    {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
)
_EXPRESSION_NAMES = frozenset(
    {
        "Symbol",
        "Integer",
        "Add",
        "Mul",
        "Pow",
        "Mod",
        "FloorDiv",
        "Max",
        "Min",
        "Rational",
        "true",
        "false",
        "True",
        "False",
    }
)
_EXPRESSION_PARTS = (
    ast.Expression,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.keyword,
    ast.UnaryOp,
    ast.USub,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.FloorDiv,
    ast.Mod,
)
_SYMBOL = re.compile(r"[su]\d+")


def read_program(file: Path) -> "tuple[torch.nn.Module, tuple[torch.Tensor, ...]]":
    """The module of an exported program and, where it takes more than a picture, example inputs.

    BuildError if the file could execute something.
    """
    with tempfile.TemporaryDirectory(prefix="hybridge-pt2-") as folder:
        clean = Path(folder) / "model.pt2"
        try:
            with zipfile.ZipFile(file) as source, zipfile.ZipFile(clean, "w") as target:
                for member in source.infolist():
                    content = _checked(member.filename, source, file)
                    target.writestr(member.filename, content)
        except (OSError, zipfile.BadZipFile, json.JSONDecodeError, RecursionError) as error:
            raise BuildError(
                f"{file.name} is no exported program: {error}; make it with torch.export.save"
            ) from error
        with quiet(f"loading of {file.name}"):
            import torch

            program = torch.export.load(clean)
            names = set(program.graph_signature.user_inputs)
            taken = [
                node.meta["val"]
                for node in program.graph.nodes
                if node.op == "placeholder" and node.name in names
            ]
            sizes = [[s if isinstance(s, int) else 1 for s in value.shape] for value in taken]
            example = tuple(
                torch.zeros(size, dtype=value.dtype)
                for size, value in zip(sizes, taken, strict=True)
            )
            module = program.module()
    for part in module.modules():
        part.training = False  # a program is as it was exported: it has no modes any more
    return module, example if len(example) > 1 else ()


def _checked(name: str, archive: zipfile.ZipFile, file: Path) -> bytes:
    """A member as it may be loaded."""
    inner = name.partition("/")[2]
    if _SAMPLES.fullmatch(inner):
        return b""
    content = archive.read(name)
    if _DATA.fullmatch(inner):
        return content
    if _CONFIG.fullmatch(inner):
        for entry in json.loads(content)["config"].values():
            if entry.get("use_pickle") or not _DATA.fullmatch(
                f"{inner.rpartition('/')[0]}/{entry['path_name']}"
            ):
                raise _refusal(file, f"a pickle, {entry['path_name']!r}")
        return content
    if _MODEL.fullmatch(inner):
        return _checked_model(content, file)
    raise _refusal(file, repr(inner or name))


def _checked_model(content: bytes, file: Path) -> bytes:
    model = json.loads(content)
    model["guards_code"] = []
    for key, value in _entries(model):
        if key in ("target", "as_operator") and isinstance(value, str):
            if not _OPERATORS.fullmatch(value):
                raise BuildError(
                    f"{file.name}: operator {value} is not one of torch's own tensor operators; "
                    "export the model to .onnx instead"
                )
        elif key == "expr_str":
            _check_expression(value, file)
        elif key in ("in_spec", "out_spec") and isinstance(value, str):
            for inner, kind in _entries(json.loads(value)):
                if inner == "type" and kind not in _TREES:
                    raise _refusal(file, f"an output of type {kind}")
        elif key in ("as_custom_obj", "as_opaque"):
            raise _refusal(file, "an object that is no tensor")
    for node in model["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
        _refuse_training(node, file)
    return json.dumps(model).encode()


def _refuse_training(node: dict[str, Any], file: Path) -> None:
    for given in node["inputs"]:
        if given["name"] in ("train", "training") and given["arg"].get("as_bool"):
            raise BuildError(
                f"{file.name} was exported in training mode ({node['target']}); call eval() and "
                "export it again"
            )


def _check_expression(text: str, file: Path) -> None:
    """Sizes are sums and products of symbols; torch hands their text to a function that runs it."""
    try:
        parsed = list(ast.walk(ast.parse(text, mode="eval")))
    except SyntaxError as error:
        raise _refusal(file, f"the size {text!r}") from error
    for part in parsed:
        known = isinstance(part, _EXPRESSION_PARTS)
        if isinstance(part, ast.Name):
            known = part.id in _EXPRESSION_NAMES or bool(_SYMBOL.fullmatch(part.id))
        elif isinstance(part, ast.Constant):
            # A call of the loader reads texts as expressions too.
            known = not isinstance(part.value, str) or bool(_SYMBOL.fullmatch(part.value))
        if not known:
            raise _refusal(file, f"the size {text!r}")


def _refusal(file: Path, what: str) -> BuildError:
    return BuildError(
        f"{file.name} holds {what}, which torch may execute when it loads it; export the model "
        "again with torch.export.save and tensors alone, or to .onnx"
    )


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)
