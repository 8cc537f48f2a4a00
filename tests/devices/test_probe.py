from pathlib import Path

import msgspec
import pytest

from hybridge.devices import probe as probe_module
from hybridge.devices.probe import Device, probe

HERE = Device(
    processor="P", architecture="x86_64", cores=4, memory_bytes=8 << 30, features=("avx2",),
    system="Linux 6", runtime="ai-edge-litert 2",
)  # fmt: skip


def test_this_machine() -> None:
    device = probe()
    assert device == probe()
    assert device.cores >= 1
    assert device.memory_bytes > 1 << 28
    assert device.processor
    assert device.runtime.startswith("ai-edge-litert ")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"processor": "Q"}, False),
        ({"cores": 5}, False),
        ({"runtime": "ai-edge-litert 3"}, False),
        ({"architecture": "aarch64"}, False),
        ({"quota_cores": 0.5}, False),
        ({"system": "Linux 7"}, True),
        ({"memory_bytes": 1}, True),
    ],
)
def test_what_makes_it_another_machine(change: dict[str, object], same: bool) -> None:
    other = msgspec.structs.replace(HERE, **change)
    assert (other.fingerprint == HERE.fingerprint) is same
    assert len(HERE.fingerprint) == 16


def test_a_processor_is_read_from_its_first_core(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(
        "processor\t: 0\nmodel name\t: First: one\nflags : sse avx2\n\nmodel name\t: Second\n"
    )
    facts = probe_module._cpu_facts(file)
    assert facts == {"processor": "0", "model name": "First: one", "flags": "sse avx2"}
    assert probe_module._cpu_facts(tmp_path / "nowhere") == {}


def test_a_board_that_names_itself_in_its_device_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = {"Features": "fp asimd asimddp"}
    monkeypatch.setattr(probe_module, "_cpu_facts", lambda _: arm)
    monkeypatch.setattr(probe_module, "_board", lambda: "Raspberry Pi 5")
    device = probe()
    assert device.processor == "Raspberry Pi 5"
    assert device.features == ("asimd", "asimddp")
