"""What a machine was doing while it was measured: its clock, its heat, and what others took."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

_CPUS = Path("/sys/devices/system/cpu")
_STAT = Path("/proc/stat")
_PI_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine was doing while it was measured; what it does not tell is left empty.

    `mhz_first` and `mhz_last` are the mean clock at the start and at the end, `throttled` how
    often the hardware or a quota held it back in between, `others_busy` the share of all cores
    that other processes took.
    """

    governor: str = ""
    mhz_first: float = 0.0
    mhz_last: float = 0.0
    throttled: int = 0
    others_busy: float = 0.0

    def warnings(self) -> tuple[str, ...]:
        """Why the times may not be those of a quiet, cool machine; empty if nothing was seen."""
        found: list[str] = []
        if self.governor and self.governor != "performance":
            found.append(
                f"the CPU governor is {self.governor}: short stages may meet a slow clock; "
                "`performance` gives steadier times"
            )
        if self.mhz_first and abs(self.mhz_last / self.mhz_first - 1) > 0.05:
            found.append(
                f"the clock went from {self.mhz_first:.0f} to {self.mhz_last:.0f} MHz meanwhile"
            )
        if self.throttled:
            found.append(f"the CPU was throttled {self.throttled} times meanwhile")
        if self.others_busy > 0.1:
            found.append(
                f"other processes took {self.others_busy:.0%} of the cores meanwhile: "
                "measure again when they are quiet"
            )
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Reading:
    mhz: float
    throttled: int
    busy_ticks: int
    all_ticks: int
    own_ticks: float


class Watch:
    """Reads the machine when it is made, and again when it is asked for the conditions."""

    def __init__(self) -> None:
        self._first = _read()

    def conditions(self) -> Conditions:
        """What happened since this watch was made."""
        first, last = self._first, _read()
        ticks = last.all_ticks - first.all_ticks
        others = (last.busy_ticks - first.busy_ticks) - (last.own_ticks - first.own_ticks)
        return Conditions(
            governor=_text(_CPUS / "cpu0/cpufreq/scaling_governor"),
            mhz_first=first.mhz,
            mhz_last=last.mhz,
            throttled=max(0, last.throttled - first.throttled),
            others_busy=round(min(max(others / ticks, 0.0), 1.0), 3) if ticks > 0 else 0.0,
        )


def _read() -> _Reading:
    busy, total = _cpu_ticks(_text(_STAT))
    own = os.times()
    seconds = own.user + own.system + own.children_user + own.children_system
    return _Reading(
        mhz=_clock_mhz(_CPUS),
        throttled=_throttle_events(_CPUS, _PI_THROTTLED),
        busy_ticks=busy,
        all_ticks=total,
        own_ticks=seconds * os.sysconf("SC_CLK_TCK"),
    )


def _cpu_ticks(stat: str) -> tuple[int, int]:
    """Busy and all ticks of every core together, from the text of /proc/stat."""
    fields = stat.partition("\n")[0].split()[1:9]
    ticks = [int(field) for field in fields]
    idle = sum(ticks[3:5])
    return sum(ticks) - idle, sum(ticks)


def _clock_mhz(cpus: Path) -> float:
    clocks = [
        float(text) / 1e3
        for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
        if (text := _text(file))
    ]
    return round(sum(clocks) / len(clocks), 1) if clocks else 0.0


def _throttle_events(cpus: Path, pi: Path) -> int:
    """Events that Intel's driver counted; a Raspberry Pi has bits for what holds it back now."""
    counted = sum(
        int(text)
        for file in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
        if (text := _text(file))
    )
    bits = int(_text(pi) or "0", 16)
    return counted + (bits & 0xF).bit_count()


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
