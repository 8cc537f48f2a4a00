"""The rules of the house that can be read off the files: who imports whom, sizes, packaging."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 500

ROOMS = {"protos", "shared", "devices", "edge", "cloud", "client", "cli", "report"}
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "protos": set(),
    "shared": {"protos"},
    "devices": {"shared"},
    "edge": {"protos", "shared", "devices"},
    "cloud": {"protos", "shared", "devices"},
    "client": {"protos", "shared"},
    "cli": ROOMS,
    "report": ROOMS,
}


def is_generated(path: Path) -> bool:
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


def package_folders() -> list[Path]:
    """The folders that are packages, the root first, relative to it."""
    found = [
        init.parent.relative_to(ROOT)
        for top in sorted(ROOT.iterdir())
        if top.is_dir() and top.name not in {"build", "dist", "tests"} and top.name[0] != "."
        for init in sorted(top.rglob("__init__.py"))
    ]
    return [Path(), *found]


def modules() -> list[Path]:
    """The hand-written modules of the package, relative to the root."""
    return [
        path.relative_to(ROOT)
        for folder in package_folders()
        for path in sorted((ROOT / folder).glob("*.py"))
        if not is_generated(path)
    ]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def violations(source: str, module: Path) -> Iterator[str]:
    """What a module at this path, relative to the root, must not import."""
    room = module.parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            absolute = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            absolute = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            yield from relative_violations(node, module, room)
            continue
        else:
            continue
        for name in absolute:
            if name.partition(".")[0] == "hybridge":
                yield f"line {node.lineno}: {name} is not imported relatively"


def relative_violations(node: ast.ImportFrom, module: Path, room: str) -> Iterator[str]:
    folder = module.parts[:-1]
    up = node.level - 1
    if up > len(folder):
        yield f"line {node.lineno}: leaves the package"
        return
    base = [*folder[: len(folder) - up], *(node.module.split(".") if node.module else [])]
    targets = [base[0]] if base else [alias.name for alias in node.names]
    for target in targets:
        if target in ROOMS and target != room and target not in MAY_IMPORT.get(room, set()):
            yield f"line {node.lineno}: {room} imports {target}"


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_keep_to_their_rooms(module: Path) -> None:
    assert module.parts[0].removesuffix(".py") in MAY_IMPORT, "a room without a rule"
    assert list(violations((ROOT / module).read_text(), module)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edge/router.py", "from ..cloud import scheduler"),
        ("edge/router.py", "from ..cloud.scheduler import Scheduler"),
        ("edge/router.py", "from .. import cloud"),
        ("edge/router.py", "def f():\n    from ..cli.main import main"),
        ("edge/router.py", "from hybridge.edge import link"),
        ("edge/router.py", "import hybridge.shared.plan as plan"),
        ("edge/router.py", "from ... import anything"),
        ("cloud/compiler/cuts.py", "from ...edge import agent"),
        ("shared/codec/raw.py", "from ...devices import probe"),
        ("protos/oip.py", "from ..shared import errors"),
        ("client/client.py", "from ..edge import agent"),
    ],
)
def test_forbidden_imports_are_found(module: str, source: str) -> None:
    assert len(list(violations(source, Path(module)))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edge/router.py", "import numpy\nfrom ..shared.plan import Plan\nfrom .link import Link"),
        ("edge/router.py", "from .. import __version__, shared"),
        ("cloud/compiler/cuts.py", "from .. import backend\nfrom ...devices import probe"),
        ("cli/main.py", "from ..edge import agent\nfrom ..cloud import service"),
        ("client/client.py", "from ..shared import errors"),
    ],
)
def test_allowed_imports_pass(module: str, source: str) -> None:
    assert list(violations(source, Path(module))) == []


def test_no_file_is_too_long() -> None:
    folders = [*package_folders()[1:], Path("tests"), Path("benchmarks"), Path("scripts")]
    files = {
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".proto", ".html", ".css", ".js", ""} and path.is_file()
    }
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in files | set(ROOT.glob("*.py"))
        if not is_generated(path) and (lines := path.read_bytes().count(b"\n")) > MAX_LINES
    }
    assert len(files) > 10
    assert too_long == {}


def test_setup_cfg_lists_every_package() -> None:
    listed = setup_cfg()["options"]["packages"].split()
    assert sorted(listed) == sorted(
        ".".join(["hybridge", *folder.parts]) for folder in package_folders()
    )


def test_setup_cfg_ships_every_data_file() -> None:
    patterns = {
        package: value.split() for package, value in setup_cfg()["options.package_data"].items()
    }
    shipped = {
        path
        for package, globs in patterns.items()
        for pattern in globs
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    present = {
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert ROOT / "protos" / "fleet.proto" in present
    assert present - shipped == set()


def test_importing_edge_loads_no_framework() -> None:
    # The limit of one second is scripts/check's, on an installation of its own; here all that
    # matters is what is loaded, on a machine that may be busy.
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_edge_import.py", "--max-seconds", "30"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
