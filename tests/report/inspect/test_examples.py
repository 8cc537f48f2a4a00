from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["pareto", "scatter", "tables"])
def test_examples(name: str) -> None:
    module = importlib.import_module(f"hybridge.report.inspect.{name}")
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)
