"""Builds that are killed, that run at the same time, and that run out of disk: real processes."""

import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = Path(__file__).with_name("quick_build.py")
STEPS = 6


def start(home: Path, *, name: str = "quick", version: str = "1") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, QUICK, home, name, version], stdout=subprocess.PIPE, text=True
    )


def finish(process: "subprocess.Popen[str]") -> tuple[list[str], Path]:
    """The steps it made, and the bundle."""
    output, _ = process.communicate()
    assert process.returncode == 0
    *made, path = output.splitlines()
    return [line.removeprefix("making ") for line in made], Path(path)


def leftovers(home: Path) -> list[str]:
    """What is there only while a build runs."""
    found = [p.name for p in home.rglob("*") if p.name.startswith(".") or p.suffix == ".lock"]
    return sorted(found)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a build that nobody disturbs gives."""
    made, path = finish(start(tmp_path_factory.mktemp("undisturbed")))
    assert made == [f"step{number}" for number in range(STEPS)]
    return (path / "manifest.json").read_bytes()


def test_killed_at_any_moment_it_resumes(tmp_path: Path, manifest: bytes) -> None:
    """After a random number of lines, and a random bit of work after each."""
    rng = random.Random(3)
    target = tmp_path / "bundles" / "quick" / "1"
    made: list[str] = []
    for _ in range(6):
        process = start(tmp_path)
        with process:
            assert process.stdout is not None
            made += [process.stdout.readline().strip() for _ in range(rng.randint(1, 2))]
            for _ in range(rng.randrange(100_000)):
                pass
            process.send_signal(signal.SIGKILL)
        if target.exists():
            assert (target / "manifest.json").read_bytes() == manifest
            break
    last, path = finish(start(tmp_path))
    assert path == target
    assert len(last) < STEPS  # something was kept
    assert (path / "manifest.json").read_bytes() == manifest
    assert leftovers(tmp_path) == []


def test_two_that_want_the_same_make_each_step_once(tmp_path: Path, manifest: bytes) -> None:
    both = [start(tmp_path), start(tmp_path)]
    (first, path), (second, other) = (finish(process) for process in both)
    assert sorted(first + second) == [f"step{number}" for number in range(STEPS)]
    assert path == other
    assert (path / "manifest.json").read_bytes() == manifest
    assert leftovers(tmp_path) == []


def test_two_others_share_a_cache(tmp_path: Path) -> None:
    both = [start(tmp_path, name="one"), start(tmp_path, name="two", version="7")]
    (first, path), (second, other) = (finish(process) for process in both)
    assert sorted(first + second) == [f"step{number}" for number in range(STEPS)]
    assert (path.parent.name, other.parent.name) == ("one", "two")
    assert leftovers(tmp_path) == []


def test_who_waits_goes_on_when_the_other_is_killed(tmp_path: Path, manifest: bytes) -> None:
    first = start(tmp_path)
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "making step0\n"
        second = start(tmp_path)
        first.kill()
    _, path = finish(second)
    assert (path / "manifest.json").read_bytes() == manifest
    assert leftovers(tmp_path) == []


LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], None, "__main__")
"""


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    """A limit on file sizes stands in for the disk: it needs no rights and is as final."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, QUICK, tmp_path, "quick", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"BuildError: cannot write .*step0.*: File too large; raise", done.stderr)
    assert not (tmp_path / "bundles" / "quick").exists()
    assert list((tmp_path / "build").iterdir()) == []
