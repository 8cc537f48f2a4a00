"""The machines on which a bundle was timed, and what its plans would take there."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...devices.boards import board_names, read_board
from ...devices.estimate import basis, estimate
from ...devices.profile import Profile, load_profiles, tail_stage
from ...edge.duration import NO_TIME, Duration
from ...edge.outlook import ALL_FORMATS, DeviceForecast, Formats, Outlook, device_stages
from ...edge.prices import Prices
from ...edge.router import Option
from ...edge.stage_times import StageTimes
from ...shared.bundle import Bundle
from ...shared.errors import ConfigError
from ...shared.manifest import Manifest
from ...shared.plan import PlanKind
from ...shared.privacy import Privacy
from ..words import count_words


@dataclass(frozen=True, slots=True)
class Machine:
    """A profile with its place in the report; `key` names it: a fingerprint, or a board's name."""

    key: str
    profile: Profile
    here: bool = False

    @property
    def name(self) -> str:
        device, threads = self.profile.device, self.profile.threads
        words = f"{device.processor}, {count_words(device.cores, 'core')}"
        if device.quota_cores:
            words += f", held to {device.quota_cores:g}"
        return f"{words}, {threads} threads" if threads > 1 else words

    @property
    def times(self) -> StageTimes:
        return StageTimes(self.profile.stages)

    @property
    def p95(self) -> DeviceForecast:
        """The p95s of stages, added up, as a time that is sure."""
        times = self.times
        return lambda stages: Duration(sum(map(times.p95_ms, stages)))

    @property
    def origin(self) -> str:
        """Where its times come from: `measured` or `estimated`."""
        return self.profile.origin.value

    def tail_ms(self, cut: str) -> float:
        """The p95 of the cloud's part behind a cut; inf where it was never measured."""
        return self.times.p95_ms(tail_stage(cut))

    @property
    def has_cloud_part(self) -> bool:
        """Whether the tails were timed there too, so that it can stand for the cloud."""
        return tail_stage("") in self.profile.stages


@dataclass(frozen=True, slots=True)
class Link:
    """An ideal link: every exchange of n bytes takes rtt + 8 n / throughput."""

    rtt_ms: float
    mbps: float

    def __post_init__(self) -> None:
        if not (0 <= self.rtt_ms < float("inf") and 0 < self.mbps < float("inf")):
            raise ConfigError("a link has a round trip of 0 ms or more and more than 0 Mbit/s")

    def transfer_ms(self, size_bytes: int) -> float:
        return self.rtt_ms + size_bytes * 8e-3 / self.mbps


def machines_of(bundle: Bundle, *, here: str = "") -> list[Machine]:
    """Every machine with a profile of this bundle, this one first; then boards, estimated."""
    profiles = load_profiles(bundle.profiles, bundle_sha256=bundle.sha256)
    measured = [_machine(profile, here=here) for profile in profiles]
    measured.sort(key=lambda machine: (not machine.here, machine.name))
    return measured + estimated(measured)


def estimated(measured: Sequence[Machine]) -> list[Machine]:
    """Boards nobody has measured, from the profile of the quietest machine that can tell."""
    quietest = basis(each.profile for each in measured)
    if quietest is None:
        return []
    boards = [read_board(name) for name in board_names()]
    return [Machine(board.name, estimate(quietest, board)) for board in boards]


def _machine(profile: Profile, *, here: str) -> Machine:
    key = profile.device.fingerprint
    threads = f"-{profile.threads}threads" if profile.threads > 1 else ""
    return Machine(key + threads, profile, key == here)


def cloud_of(machines: Sequence[Machine]) -> Machine | None:
    """The machine that stands for the cloud: the first on which the tails were timed."""
    return next((machine for machine in machines if machine.has_cloud_part), None)


def pick(machines: Sequence[Machine], wanted: str) -> Machine:
    """The machine of a fingerprint's beginning or a part of its name; the first if none is named.

    ConfigError if there is none, or more than one.
    """
    if not machines:
        raise ConfigError("no machine has a profile of this bundle; run `hybridge profile` on one")
    if not wanted:
        return machines[0]
    names = ", ".join(f"{machine.key} ({machine.name})" for machine in machines)
    found = [
        machine
        for machine in machines
        if machine.key.startswith(wanted) or wanted.lower() in machine.name.lower()
    ]
    if len(found) != 1:
        what = "no machine" if not found else f"{len(found)} machines"
        raise ConfigError(f"{what} of the name {wanted!r}; there are {names}")
    return found[0]


def options_on(
    manifest: Manifest,
    machine: Machine,
    *,
    cloud: Machine | None,
    link: Link,
    cloud_speed: float,
    privacy: Privacy | None = None,
    prices: Prices | None = None,
    formats: Formats = ALL_FORMATS,
) -> Sequence[Option]:
    """The router's options on a machine and an ideal link; inf stands for what nobody timed.

    `formats` are the picture formats that the machine has.
    """
    tails = cloud_ms(manifest, cloud)
    return Outlook(manifest, privacy=privacy, prices=prices).options(
        device=machine.p95,
        transfer=lambda p50, p95: Duration(link.transfer_ms(p95)),
        formats=formats,
        cloud=lambda contract: Duration(tails[contract] / cloud_speed),
    )


def cloud_ms(manifest: Manifest, cloud: Machine | None) -> dict[str, float]:
    """By contract, the p95 of the cloud's part."""
    times = cloud.times if cloud else StageTimes({})
    plans = [row.parsed() for row in manifest.table]
    return {
        manifest.contract(plan).id: times.p95_ms(tail_stage(plan.cut))
        for plan in plans
        if plan.kind is not PlanKind.LOCAL
    }


def device_ms(manifest: Manifest, machine: Machine) -> list[float]:
    """By row of the table, the p95 of its stages on the device, as the router adds them."""
    options = Outlook(manifest).options(
        device=machine.p95,
        transfer=lambda p50, p95: NO_TIME,
        cloud=lambda contract: NO_TIME,
    )
    by_plan = {option.plan: option.device_ms for option in options}
    return [by_plan[row.parsed()] for row in manifest.table]


def layers_of(manifest: Manifest) -> dict[str, list[tuple[int, float, int]]]:
    """By plan, what the router knows of the parts of its frame: layers, agreement, p95 bytes."""
    options = Outlook(manifest).options(
        device=lambda stages: NO_TIME,
        transfer=lambda p50, p95: Duration(p95),
        cloud=lambda contract: NO_TIME,
    )
    return {
        str(option.plan): [
            (part.layers, part.agreement, round(part.total.mean_ms)) for part in option.parts
        ]
        for option in options
    }


def parts_ms(manifest: Manifest, machine: Machine) -> list[list[tuple[str, float]]]:
    """By row of the table, each of its stages on the device."""
    times = machine.times
    return [
        [(stage, times.p95_ms(stage)) for stage in device_stages(row.parsed())]
        for row in manifest.table
    ]
