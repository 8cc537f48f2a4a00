from pathlib import Path

import pytest
from wan.link_model import Link, Rate, Trace
from wan.links import find_link, profiles, recorded_names

from hybridge.cli.plan import LINKS
from hybridge.shared.errors import ConfigError


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    (tmp_path / "Some-LTE-drive.up").write_text("0\n5\n10\n")
    (tmp_path / "Some-LTE-drive.down").write_text("1\n1\n10\n")
    (tmp_path / "alone.up").write_text("1\n")
    return tmp_path


@pytest.mark.parametrize("name", LINKS)
def test_profiles_are_the_links_of_the_command_line(name: str) -> None:
    rtt_ms, mbps = LINKS[name]
    link = find_link(name)
    assert isinstance(link.up.bottleneck, Rate)
    assert link.up.bottleneck.bps / 1e6 == pytest.approx(mbps, rel=0.05)
    assert link.up.delay_ms + link.down.delay_ms == pytest.approx(rtt_ms, abs=0.8)


@pytest.mark.parametrize("name", profiles())
def test_every_profile_carries_a_picture(name: str) -> None:
    link = Link(find_link(name), seed=1)
    arrivals = [link.up.put(1500, 0.0) for _ in range(20)]
    assert None not in arrivals


def test_a_recorded_link_is_read_from_its_two_files(traces: Path) -> None:
    link = find_link("trace:Some-LTE-drive", traces=traces)
    assert isinstance(link.up.bottleneck, Trace)
    assert isinstance(link.down.bottleneck, Trace)
    assert link.up.bottleneck.times_s == [0.0, 0.005, 0.01]
    assert link.down.bottleneck.times_s == [0.001, 0.001, 0.01]
    assert link.up.delay_ms == 22.0


def test_recorded_links_have_both_ways(traces: Path) -> None:
    assert recorded_names(traces) == ["trace:Some-LTE-drive"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("5g", "no link '5g'"), ("trace:alone", r"alone\.down"), ("trace:none", r"none\.up")],
)
def test_what_is_not_there_is_said(traces: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_link(name, traces=traces)


def test_recorded_links_need_their_folder() -> None:
    with pytest.raises(ConfigError, match="--traces"):
        find_link("trace:any")
