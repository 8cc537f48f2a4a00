import pytest

from hybridge.devices import yardstick as yardstick_module
from hybridge.devices.boards import Kind, read_reference
from hybridge.devices.yardstick import measure_yardstick, yardstick_of


def test_every_kind_of_work_has_a_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardstick_module, "_RUNS", 3)
    measured = measure_yardstick()
    assert set(measured) == {yardstick_of(kind) for kind in Kind}
    assert set(measured) == set(read_reference().yardstick_ms)
    assert all(ms > 0 for ms in measured.values())
