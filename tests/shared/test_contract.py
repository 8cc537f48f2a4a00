from dataclasses import replace
from typing import Any

import pytest

from hybridge.shared.contract import DIGEST_BYTES, Contract, Part

CUT = Contract(
    tensor="relu",
    shape=(4, 6, 8),
    dtype="INT8",
    model="ab" * 32,
    scale=0.02,
    zero_point=-128,
    codecs={"affine4": {"low": -128.0, "high": 100.5}},
)
GOLDEN = "6e74cb4b07e1d55bc0364d03d710a89ca47b8227229490c2879e3dac0e5413f1"


def test_the_digest_is_the_same_for_ever() -> None:
    assert CUT.id == GOLDEN
    assert CUT.digest == bytes.fromhex(GOLDEN)
    assert len(CUT.digest) == DIGEST_BYTES


PARTS = (
    Part(
        tensor="left",
        shape=(2, 3, 4),
        scale=0.5,
        zero_point=-128,
        codecs={"affine4": {"low": -128.0, "high": 0.0}},
    ),
    Part(
        tensor="right",
        shape=(5,),
        scale=0.25,
        zero_point=3,
        codecs={"affine4": {"low": -1.0, "high": 90.0}},
    ),
)
SEVERAL = Contract(tensor="left+right", shape=(29,), dtype="INT8", model="ab" * 32, parts=PARTS)
GOLDEN_SEVERAL = "d013162aa49c39fb0197e990a2f5e099f3d8a0a10a5e1e78a295dca57482e354"


def test_the_digest_of_several_tensors_is_the_same_for_ever() -> None:
    assert SEVERAL.id == GOLDEN_SEVERAL
    assert SEVERAL.elements == 29


@pytest.mark.parametrize(
    "change",
    [
        {"tensor": "middle"},
        {"shape": (4, 3, 2)},
        {"scale": 0.25},
        {"zero_point": -127},
        {"codecs": {"affine4": {"low": -128.0, "high": 1.0}}},
    ],
)
def test_every_field_of_a_part_changes_the_digest(change: dict[str, Any]) -> None:
    assert replace(SEVERAL, parts=(replace(PARTS[0], **change), PARTS[1])).id != SEVERAL.id


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (28,)},
        {"shape": (1, 29)},
        {"scale": 0.5, "zero_point": 0},
        {"codecs": {"affine4": {"low": 0.0, "high": 1.0}}},
        {"shape": (24,), "parts": PARTS[:1]},
        {"shape": (5,), "parts": (replace(PARTS[0], shape=(0, 4)), PARTS[1])},
    ],
)
def test_what_is_no_contract_of_several(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"part"):
        replace(SEVERAL, **change)


def test_equal_contracts_have_equal_digests() -> None:
    reordered = replace(CUT, codecs={"affine4": {"high": 100.5, "low": -128.0}})
    assert reordered.digest == CUT.digest
    assert replace(CUT).digest == CUT.digest


CHANGES: dict[str, Any] = {
    "tensor": "relu6",
    "shape": (6, 4, 8),
    "dtype": "UINT8",
    "model": "ab" * 31 + "ac",
    "scale": 0.020000000000000004,
    "zero_point": -127,
    "codecs": {"affine4": {"low": -128.0, "high": 100.50000000000001}},
}


def test_every_field_changes_the_digest() -> None:
    assert set(CHANGES) == set(Contract.__dataclass_fields__) - {"parts"}
    digests = {replace(CUT, **{name: value}).digest for name, value in CHANGES.items()}
    assert len(digests | {CUT.digest}) == len(CHANGES) + 1


@pytest.mark.parametrize(
    "change",
    [{"shape": ()}, {"shape": (4, 0)}, {"shape": (-1,)}, {"scale": None}, {"zero_point": None}],
)
def test_what_is_no_contract(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"contract shape|come together"):
        replace(CUT, **change)


def test_elements() -> None:
    assert CUT.elements == 4 * 6 * 8


def test_a_scale_that_is_no_number_has_no_digest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = replace(CUT, scale=float("nan")).digest
