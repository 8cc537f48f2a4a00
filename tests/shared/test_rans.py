import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.codec.rans import (
    TOTAL,
    Decoder,
    Encoder,
    Tables,
    frequencies_of,
    lanes_of,
)
from hybridge.shared.errors import FrameError


def coded(
    tables: Tables, passes: list[tuple[np.ndarray, np.ndarray]], *, lanes: int, seeds: np.ndarray
) -> bytes:
    encoder = Encoder(tables, lanes=lanes, seeds=seeds)
    for symbols, own in reversed(passes):
        encoder.push(symbols, own)
    return encoder.finish()


@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=4),
    lanes=st.integers(1, 90),
    symbols=st.integers(2, 63),
    skew=st.sampled_from([0.02, 0.5, 50.0]),
)
def test_passes_come_back_with_their_seeds(
    seed: int, sizes: list[int], lanes: int, symbols: int, skew: float
) -> None:
    random = np.random.default_rng(seed)
    tables = Tables(frequencies_of(random.dirichlet(np.full(symbols, skew), size=5)))
    passes = [
        (
            random.integers(0, symbols, size).astype(np.uint8),
            random.integers(0, 5, size).astype(np.int32),
        )
        for size in sizes
    ]
    seeds = random.integers(0, 256, lanes).astype(np.uint8)
    payload = coded(tables, passes, lanes=lanes, seeds=seeds)
    decoder = Decoder(tables, payload + b"more", lanes=lanes)
    for wanted, own in passes:
        np.testing.assert_array_equal(decoder.pull(own), wanted)
    found, rest = decoder.finish()
    np.testing.assert_array_equal(found, seeds)
    assert rest.tobytes() == b"more"


def test_size_is_within_two_percent_of_what_the_frequencies_say() -> None:
    random = np.random.default_rng(5)
    frequencies = frequencies_of(random.dirichlet(np.full(15, 0.6), size=64))
    own = random.integers(0, 64, 25_000).astype(np.int32)
    below = frequencies[own].cumsum(axis=1, dtype=np.int64)
    symbols = (random.integers(0, TOTAL, own.size)[:, None] >= below).sum(axis=1).astype(np.uint8)
    ideal = -np.log2(frequencies[own, symbols] / TOTAL).sum() / 8
    lanes = lanes_of(own.size)
    payload = coded(
        Tables(frequencies), [(symbols, own)], lanes=lanes, seeds=np.zeros(lanes, np.uint8)
    )
    assert ideal < len(payload) - lanes < 1.02 * ideal  # a seed a lane is the caller's


def test_frequencies_sum_up_and_leave_nothing_out() -> None:
    made = frequencies_of([[1e9, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 1e-3]])
    assert made.tolist()[0] == [253, 1, 1, 1]
    assert made.tolist()[1] == [64, 64, 64, 64]
    assert (made.sum(axis=1, dtype=int) == TOTAL).all()
    assert made.min() == 1
    with pytest.raises(ValueError, match="too many"):
        frequencies_of(np.ones((1, 200)))


@pytest.mark.parametrize("payload", [b"", b"\0\1", bytes(8), b"\xff\0" * 4])
def test_a_decoder_wants_states_that_an_encoder_has(payload: bytes) -> None:
    tables = Tables(frequencies_of(np.ones((1, 3))))
    with pytest.raises(FrameError, match="states"):
        Decoder(tables, payload, lanes=4)


def test_tables_check_what_they_are_made_of() -> None:
    with pytest.raises(ValueError, match="sum to"):
        Tables(np.array([[100, 100]], np.uint8))
    with pytest.raises(ValueError, match="tables, symbols"):
        Tables(np.zeros((0, 3), np.uint8))
    tables = Tables(np.array([[255, 1]], np.uint8))
    with pytest.raises(ValueError, match="seeds"):
        Encoder(tables, lanes=2, seeds=np.zeros(3, np.uint8))
