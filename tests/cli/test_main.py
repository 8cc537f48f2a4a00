import argparse

import pytest

from hybridge import __version__
from hybridge.cli import main as main_module
from hybridge.cli.main import main
from hybridge.shared.errors import MEANINGS, HybridgeError


class Failing:
    """A command `fail` that raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def register(self, commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        commands.add_parser("fail").set_defaults(run=self._run)

    def _run(self, options: argparse.Namespace) -> int:
        raise self._error


def run_failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    monkeypatch.setattr(main_module, "_COMMANDS", (Failing(error),))
    return main(["fail"])


@pytest.mark.parametrize("kind", MEANINGS, ids=lambda kind: kind.__name__)
def test_every_fault_has_its_exit_code_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[HybridgeError]
) -> None:
    line = MEANINGS[kind]
    assert run_failing(monkeypatch, kind("[bold]why[/bold] x[0]")) == line.exit_code
    said = capsys.readouterr()
    assert said.err == f"hybridge: {line.text}: [bold]why[/bold] x[0]\n"
    assert said.out == ""


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("zeroconf.asyncio", "edge"),
        ("onnxruntime", "cloud"),
        ("cv2", "sources"),
        ("torch", "build"),
    ],
)
def test_an_extra_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str, extra: str
) -> None:
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert run_failing(monkeypatch, error) == 78
    said = capsys.readouterr().err
    assert f"No module named {module!r}; pip install 'hybridge[{extra}]'" in said


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_failing(monkeypatch, KeyboardInterrupt()) == 130


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run_failing(monkeypatch, ZeroDivisionError())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"hybridge {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["plan"], ["infer"], ["edge", "--alone"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: hybridge" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for command in ("demo", "build", "plan", "cloud", "edge", "infer", "probe", "profile", "key"):
        assert f"    {command} " in said
