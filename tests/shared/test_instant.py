import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.errors import RequestError
from hybridge.shared.instant import boot_id, since_ms, tell

seconds = st.floats(0, 1e9)


@pytest.fixture(autouse=True)
def booted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridge.shared.instant.boot_id", lambda: "this-boot")


@given(seconds, st.floats(0, 1e5))
def test_another_process_knows_how_long_ago_it_was(told_s: float, later_s: float) -> None:
    ago_ms = since_ms(tell(told_s), now_s=told_s + later_s + 1e-3)
    assert ago_ms == pytest.approx(later_s * 1e3 + 1.0, abs=0.01, rel=1e-6)


def test_what_lies_ahead_or_is_of_another_machine_says_nothing() -> None:
    assert since_ms(tell(10.0), now_s=9.9) is None
    assert since_ms("another-boot:9.0", now_s=10.0) is None
    assert since_ms(":9.0", now_s=10.0) is None
    assert since_ms("9.0", now_s=10.0) is None
    assert since_ms("this-boot:nan", now_s=10.0) is None


def test_a_machine_that_does_not_name_its_boot_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hybridge.shared.instant.boot_id", lambda: "")
    assert tell(10.0) == ""
    assert since_ms(":9.0", now_s=10.0) is None


@pytest.mark.parametrize("told", ["", "this-boot", "this-boot:", "this-boot:soon"])
def test_what_is_no_instant_is_refused(told: str) -> None:
    with pytest.raises(RequestError, match="is no instant"):
        since_ms(told, now_s=10.0)


def test_the_kernel_names_the_boot_once() -> None:
    assert boot_id() == boot_id()
    assert ":" not in boot_id()
