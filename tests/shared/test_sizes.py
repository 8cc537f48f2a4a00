import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.errors import ConfigError
from hybridge.shared.sizes import parse_bytes, written_bytes


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4GiB", 4 << 30),
        ("4 GB", 4 * 10**9),
        ("1.5MiB", 3 << 19),
        ("12kB", 12_000),
        ("12KiB", 12 << 10),
        ("1TiB", 1 << 40),
        (" 300 ", 300),
    ],
)
def test_amounts(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    "text", ["", "GiB", "-4GiB", "4gib", "4 G B", "4GiB!", "1e9", "inf", "٤GiB"]
)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ConfigError, match="is no amount of memory; write 4GiB"):
        parse_bytes(text)


@given(st.integers(0, 1 << 45))
def test_what_is_written_can_be_read(amount: int) -> None:
    assert parse_bytes(written_bytes(amount)) == pytest.approx(amount, rel=0.01)
