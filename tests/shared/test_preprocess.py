import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.preprocess import Interpolation, PreprocessSpec

finite = st.floats(-1000, 1000)
specs = st.builds(
    PreprocessSpec,
    size_px=st.integers(1, 512),
    crop_padding_px=st.none() | st.integers(0, 100),
    interpolation=st.sampled_from(Interpolation),
    antialias=st.booleans(),
    mean=st.tuples(finite, finite, finite),
    std=st.tuples(*[st.floats(0.001, 1000)] * 3),
)
DEFAULTS = msgspec.to_builtins(PreprocessSpec(size_px=224))


@given(specs)
def test_a_spec_survives_json(spec: PreprocessSpec) -> None:
    assert msgspec.json.decode(msgspec.json.encode(spec), type=PreprocessSpec) == spec


@given(specs, st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_crop_is_a_centred_square_inside_the_picture(
    spec: PreprocessSpec, width: int, height: int
) -> None:
    crop = spec.crop(width=width, height=height)
    if spec.crop_padding_px is None:
        assert crop is None
        return
    assert crop is not None
    left, top, side = crop
    assert 1 <= side <= min(width, height)
    for first, length in ((left, width), (top, height)):
        assert first >= 0
        assert first + side <= length
        assert abs(2 * first + side - length) <= 1
    share = spec.size_px / (spec.size_px + spec.crop_padding_px)
    assert abs(side - share * min(width, height)) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size_px": 0}, "size_px 0"),
        ({"size_px": 5000}, "size_px 5000"),
        ({"size_px": "224"}, "Expected `int`.*size_px"),
        ({"crop_padding_px": -1}, "crop_padding_px -1"),
        ({"interpolation": "nearest"}, "nearest"),
        ({"antialias": 1}, "Expected `bool`.*antialias"),
        ({"mean": [1.0, 2.0]}, "length 3.*mean"),
        ({"mean": [1.0, 2.0, float("nan")]}, "three finite numbers"),
        ({"std": [1.0, 0.0, 1.0]}, "above zero"),
        ({"std": "abc"}, "Expected `array`.*std"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(DEFAULTS | change, PreprocessSpec)
