"""The examples in the docstrings are run."""

import doctest
import importlib

import pytest

MODULES = [
    "shared.answer", "shared.codec.affine", "shared.deadline", "shared.manifest", "shared.plan",
    "shared.preprocess", "cloud.cost", "cloud.compiler.litert",
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"hybridge.{name}")
    failed, tried = doctest.testmod(module, globs={**vars(module)})
    assert failed == 0
    assert tried > 0
