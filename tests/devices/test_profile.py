from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.devices import profile as profile_module
from hybridge.devices.profile import (
    Origin,
    Profile,
    Runs,
    StageTime,
    load_profile,
    load_profiles,
    measure,
    save_profile,
    summarize,
)
from hybridge.shared.errors import ConfigError

from .test_probe import HERE

PROFILE = Profile(
    device=HERE,
    bundle_sha256="ab" * 32,
    stages={"light": StageTime(p50_ms=1.0, p95_ms=2.0, p999_ms=3.0, runs=50)},
)
OTHER = msgspec.structs.replace(HERE, processor="another")


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=200))
def test_quantiles_stand_in_order_and_are_careful(times_ms: list[float]) -> None:
    stage = summarize(Runs(times_ms, times_ms))
    assert stage.runs == len(times_ms)
    slack = 1 + 1e-9
    assert stage.p50_ms <= stage.p95_ms * slack
    assert stage.p95_ms <= max(times_ms) * slack
    assert stage.p999_ms * slack >= max(times_ms)


def test_known_quantiles() -> None:
    few = summarize(Runs([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (few.p50_ms, few.p999_ms) == (3.0, 6.0)
    assert few.p95_ms == pytest.approx(4.8)
    many = summarize(Runs([float(ms) for ms in range(1001)]))
    assert (many.p50_ms, many.p95_ms, many.p999_ms) == (500.0, 950.0, 999.0)


def test_measuring_counts_and_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns, calls = 0, 0

    def work() -> None:
        nonlocal now_ns, calls
        calls += 1
        now_ns += 100_000_000 if calls <= 5 else 2_000_000  # cold runs are slow

    monkeypatch.setattr(profile_module.time, "perf_counter_ns", lambda: now_ns)
    monkeypatch.setattr(profile_module.time, "thread_time_ns", lambda: now_ns // 2)
    stage = measure(work, runs=20)
    assert calls == 25
    assert stage == StageTime(p50_ms=2.0, p95_ms=2.0, p999_ms=2.0, runs=20, cpu_ms=1.0)


def test_profiles_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    assert load_profile(folder, HERE, bundle_sha256="ab" * 32) is None
    file = save_profile(PROFILE, folder)
    assert [*folder.iterdir()] == [file]
    assert load_profile(folder, HERE, bundle_sha256="ab" * 32) == PROFILE
    assert load_profile(folder, HERE, bundle_sha256="cd" * 32) is None
    assert load_profile(folder, OTHER, bundle_sha256="ab" * 32) is None


def test_a_clock_that_sinks_shows_as_drift() -> None:
    slow_ms = [*[10.0] * 10, *[15.0] * 10, *[20.0] * 10]
    assert summarize(Runs(slow_ms, slow_ms)).drift == 2.0
    noisy = summarize(Runs(slow_ms, [10.0] * 30))
    assert (noisy.drift, noisy.cpu_ms) == (1.0, 10.0)  # others took the time, not the clock
    assert summarize(Runs([1.0, 2.0], [1.0, 2.0])).drift == 1.0


def test_cpu_time_of_one_thread_says_nothing_of_several() -> None:
    shared = summarize(Runs([10.0] * 3, [4.0] * 3), threads=2)
    assert (shared.p50_ms, shared.cpu_ms) == (10.0, 0.0)


def test_every_number_of_threads_has_its_own(tmp_path: Path) -> None:
    two = msgspec.structs.replace(PROFILE, threads=2)
    files = {save_profile(each, tmp_path) for each in (PROFILE, two)}
    assert len(files) == 2
    for each in (PROFILE, two):
        found = load_profile(tmp_path, HERE, bundle_sha256="ab" * 32, threads=each.threads)
        assert found == each
    assert load_profile(tmp_path, HERE, bundle_sha256="ab" * 32, threads=3) is None
    (tmp_path / f"{HERE.fingerprint}-3threads.json").write_bytes(min(files).read_bytes())
    assert load_profile(tmp_path, HERE, bundle_sha256="ab" * 32, threads=3) is None


def test_an_estimate_is_never_kept(tmp_path: Path) -> None:
    guess = msgspec.structs.replace(PROFILE, origin=Origin.ESTIMATED)
    with pytest.raises(ConfigError, match="only a machine's own times"):
        save_profile(guess, tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    device = (
        '{"processor":"P","architecture":"x86_64","cores":4,"memory_bytes":8589934592,'
        '"features":["avx2"],"system":"Linux 6","runtime":"ai-edge-litert 2"}'
    )
    stage = '{"p50_ms":1.0,"p95_ms":2.0,"p999_ms":3.0,"runs":50}'
    (tmp_path / f"{HERE.fingerprint}.json").write_text(
        f'{{"device":{device},"bundle_sha256":"{"ab" * 32}","stages":{{"light":{stage}}}}}'
    )
    assert load_profile(tmp_path, HERE, bundle_sha256="ab" * 32) == PROFILE


def test_every_machine_has_its_own(tmp_path: Path) -> None:
    elsewhere = msgspec.structs.replace(PROFILE, device=OTHER)
    for each in (PROFILE, elsewhere):
        save_profile(each, tmp_path)
    save_profile(PROFILE, tmp_path)  # again
    found = load_profiles(tmp_path, bundle_sha256="ab" * 32)
    assert sorted(each.device.processor for each in found) == ["P", "another"]
    assert load_profiles(tmp_path, bundle_sha256="cd" * 32) == []
    assert load_profiles(tmp_path / "nowhere", bundle_sha256="ab" * 32) == []


@pytest.mark.parametrize("ms", ["-1.0", "1e999"])
def test_times_that_are_none(tmp_path: Path, ms: str) -> None:
    file = save_profile(PROFILE, tmp_path)
    file.write_text(file.read_text().replace("2.0", ms))
    with pytest.raises(ConfigError, match="; delete it"):
        load_profile(tmp_path, HERE, bundle_sha256="ab" * 32)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"stages": 5}', b"\xff"])
def test_what_is_no_profile(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{HERE.fingerprint}.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"is no device profile .*; delete it"):
        load_profile(tmp_path, HERE, bundle_sha256="ab" * 32)
