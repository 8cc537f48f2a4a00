from pathlib import Path

import pytest

from hybridge.devices import conditions as conditions_module
from hybridge.devices.conditions import Conditions, Watch

STAT = "cpu  {user} 0 100 {idle} 50 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two cores in files."""
    cpus = tmp_path / "cpu"
    for cpu in (0, 1):
        write(cpus / f"cpu{cpu}/cpufreq/scaling_cur_freq", "2000000\n")
        write(cpus / f"cpu{cpu}/thermal_throttle/core_throttle_count", "3\n")
    write(cpus / "cpu0/cpufreq/scaling_governor", "ondemand\n")
    write(tmp_path / "stat", STAT.format(user=1000, idle=9000))
    write(tmp_path / "pi", "50000\n")
    monkeypatch.setattr(conditions_module, "_CPUS", cpus)
    monkeypatch.setattr(conditions_module, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(conditions_module, "_PI_THROTTLED", tmp_path / "pi")
    return tmp_path


def test_a_quiet_machine(machine: Path) -> None:
    found = Watch().conditions()
    assert (found.governor, found.mhz_first, found.mhz_last) == ("ondemand", 2000.0, 2000.0)
    assert (found.throttled, found.others_busy) == (0, 0.0)
    assert len(found.warnings()) == 1
    assert "ondemand" in found.warnings()[0]


def test_what_happened_meanwhile(machine: Path) -> None:
    watch = Watch()
    write(machine / "cpu/cpu0/cpufreq/scaling_cur_freq", "1000000")
    write(machine / "cpu/cpu1/thermal_throttle/core_throttle_count", "5")
    write(machine / "pi", "50004")  # the fourth bit: throttled now
    write(machine / "stat", STAT.format(user=1_000_000, idle=1_009_000))
    found = watch.conditions()
    assert (found.mhz_first, found.mhz_last, found.throttled) == (2000.0, 1500.0, 3)
    assert found.others_busy == pytest.approx(0.5, abs=0.01)
    said = "; ".join(found.warnings())
    assert "from 2000 to 1500 MHz" in said
    assert "throttled 3 times" in said
    assert "other processes took 50%" in said


def test_ones_own_work_is_not_that_of_others(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    own_ticks = watch._first.own_ticks + 1_000_000
    write(machine / "stat", STAT.format(user=1_001_000, idle=1_009_000))
    read = conditions_module._read
    monkeypatch.setattr(
        conditions_module,
        "_read",
        lambda: conditions_module._Reading(
            mhz=read().mhz, throttled=0, busy_ticks=read().busy_ticks,
            all_ticks=read().all_ticks, own_ticks=own_ticks,
        ),
    )  # fmt: skip
    assert watch.conditions().others_busy == 0.0


def test_a_machine_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CPUS", "_STAT", "_PI_THROTTLED"):
        monkeypatch.setattr(conditions_module, name, tmp_path / "nowhere")
    assert Watch().conditions() == Conditions()
    assert Conditions().warnings() == ()


def test_a_steady_machine_is_not_warned_about() -> None:
    steady = Conditions(governor="performance", mhz_first=2400, mhz_last=2395, others_busy=0.05)
    assert steady.warnings() == ()
