import os
import subprocess
import sys
import warnings

import pytest

from hybridge.cloud.compiler.quiet import quiet
from hybridge.shared.errors import BuildError


def test_nothing_is_shown_while_all_goes_well(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet("a step"):
        sys.stdout.write("python\n")
        os.write(2, b"c++\n")
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
        warnings.warn("chatter", FutureWarning, stacklevel=1)
    assert capfd.readouterr() == ("", "")


def test_output_comes_back_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet("a step"):
        sys.stdout.write("hidden\n")
    sys.stdout.write("shown\n")
    os.write(2, b"errors too\n")
    assert capfd.readouterr() == ("shown\n", "errors too\n")


def fail(error: Exception) -> None:
    with quiet("conversion"):
        os.write(2, b"op FOO is missing\n")
        raise error


def test_a_failure_names_the_step_and_shows_the_log() -> None:
    with pytest.raises(BuildError, match=r"conversion: KeyError: 'x'\n(.|\n)*op FOO is missing"):
        fail(KeyError("x"))


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(BuildError, match=r"^as it was$"):
        fail(BuildError("as it was"))
