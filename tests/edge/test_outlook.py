import math
from collections.abc import Callable
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hybridge.devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, encode_stage, head_stage
from hybridge.edge.duration import NEVER, Duration
from hybridge.edge.outlook import DeviceForecast, Outlook, Waits, device_stages
from hybridge.edge.prices import Prices
from hybridge.edge.processor import WANTED
from hybridge.edge.router import Option, Part
from hybridge.shared.manifest import Manifest, Precision, Prefix, Rate, Rates
from hybridge.shared.plan import Plan

from .. import exposed
from ..bundles import CLOUD, CUT, LOCAL, SPLIT, Small

inf = float("inf")
HEAD = head_stage(CUT, "int8")
STAGES = (RESIZE_LIGHT, LIGHT, RESIZE_LARGE, HEAD, encode_stage(SPLIT), encode_stage(CLOUD))
STAGE_MS = {stage: 2.0**at for at, stage in enumerate(STAGES)}


def manifest_of(small: Small) -> Manifest:
    return small.bundle.manifest


def in_turn(stage: Callable[[str], Duration]) -> DeviceForecast:
    """Stages one after the other, each as long as this says."""
    return lambda stages: reduce(Duration.then, map(stage, stages))


def options_of(
    outlook: Outlook, *, ms: float = 1.0, reachable: bool = True, waits: Waits | None = None
) -> dict[Plan, Option]:
    """Every stage, transfer and run in the cloud takes so long, and varies by a tenth."""
    took = Duration(ms, (ms / 10) ** 2)
    options = outlook.options(
        device=in_turn(lambda _: took),
        transfer=lambda p50, p95: took if reachable else NEVER,
        cloud=lambda _: took,
        waits=waits or Waits(),
    )
    return {option.plan: option for option in options}


def test_stages_of_plans() -> None:
    assert device_stages(LOCAL) == (RESIZE_LIGHT, LIGHT)
    assert device_stages(CLOUD) == (RESIZE_LARGE, encode_stage(CLOUD))
    assert device_stages(SPLIT) == (RESIZE_LARGE, HEAD, encode_stage(SPLIT))


def test_each_row_becomes_an_option_of_its_own_times(small: Small) -> None:
    manifest = manifest_of(small)
    tails = {manifest.large.pixels.id: 1000.0, manifest.cut(CUT).contract.id: 500.0}
    options = Outlook(manifest).options(
        device=in_turn(lambda name: Duration(STAGE_MS[name])),
        transfer=lambda p50, p95: Duration((p50 + p95) / 10),
        cloud=lambda contract: Duration(tails[contract]),
    )
    rows = {row.parsed(): row for row in manifest.table}
    sent_ms = {plan: (row.bytes_p50 + row.bytes_p95) / 10 for plan, row in rows.items()}
    assert rows[CLOUD].bytes_p95 > rows[SPLIT].bytes_p95 > 0
    assert {o.plan: (o.size_bytes, o.device_ms, o.network_ms, o.cloud_ms) for o in options} == {
        LOCAL: (0, 1 + 2, 0, 0),
        SPLIT: (rows[SPLIT].bytes_p95, 4 + 8 + 16, sent_ms[SPLIT], 500),
        CLOUD: (rows[CLOUD].bytes_p95, 4 + 32, sent_ms[CLOUD], 1000),
    }
    assert {o.plan: o.agreement for o in options} == {p: row.agreement for p, row in rows.items()}
    values = [option.agreement.value for option in options]
    assert options[0].plan == LOCAL
    assert values[1:] == sorted(values[1:], reverse=True)
    assert {o.variance for o in options} == {0.0}


@given(st.floats(0.1, 1e4))
def test_variances_add_up_along_a_plan(small: Small, ms: float) -> None:
    options = options_of(Outlook(manifest_of(small)), ms=ms)
    parts = {LOCAL: 2, CLOUD: 2 + 2, SPLIT: 3 + 2}
    for plan, option in options.items():
        assert option.total_ms == pytest.approx(parts[plan] * ms)
        assert option.variance == pytest.approx(parts[plan] * (ms / 10) ** 2)


@given(st.floats(0, 500), st.floats(0, 500), st.floats(0, 100))
def test_who_comes_later_waits(
    small: Small, light_ms: float, remote_ms: float, variance: float
) -> None:
    outlook = Outlook(manifest_of(small))
    at_once = options_of(outlook)
    waits = Waits(light=Duration(light_ms, variance), remote=Duration(remote_ms, 2 * variance))
    waiting = options_of(outlook, waits=waits)
    for plan, option in waiting.items():
        wait_ms, wait_variance = (
            (light_ms, variance) if plan == LOCAL else (remote_ms, 2 * variance)
        )
        assert option.device_ms == pytest.approx(at_once[plan].device_ms + wait_ms)
        assert option.variance == pytest.approx(at_once[plan].variance + wait_variance)
        assert option.energy_j == at_once[plan].energy_j  # waiting takes none
        assert option.network_ms == at_once[plan].network_ms


@given(st.floats(0.1, 500), st.floats(0, 30), st.booleans())
def test_nothing_is_done_sooner_than_was_said_before(
    small: Small, ms: float, hz: float, first: bool
) -> None:
    manifest = manifest_of(small)
    waits = Waits(light=Duration(3.0), remote=Duration(5.0, 1.0), remote_hz=hz)
    options = Outlook(manifest, alone=lambda _: ms / 2).options(
        device=in_turn(lambda stage: Duration(ms, ms)),
        transfer=lambda p50, p95: Duration(ms + p50 / 1e3, ms),
        transfer_ms=lambda p50: ms + p50 / 1e3,
        cloud=lambda contract: Duration(3.0 * ms, 1.0),
        waits=waits,
    )
    for at in range(len(options)):
        if first:
            whole_ms, soonest_ms = options[at].total_ms, options.soonest_ms(at)
        else:
            soonest_ms, whole_ms = options.soonest_ms(at), options[at].total_ms
        assert soonest_ms <= whole_ms
        stages = len(device_stages(options[at].plan))
        among_ms = waits.among_others_ms(stages * ms / 2) if hz else 0.0
        if options[at].plan != LOCAL:
            assert options[at].device_ms == pytest.approx(max(stages * ms, among_ms) + 5.0)
        if options[at].plan != LOCAL:
            assert soonest_ms == pytest.approx(whole_ms)


def test_energy_and_money(small: Small) -> None:
    prices = Prices(device_w=3.0, joules_per_mb=7.0, per_gb=11.0, per_cloud_hour=13.0)
    options = options_of(Outlook(manifest_of(small), prices=prices), ms=10.0)
    for plan, option in options.items():
        stages = len(device_stages(plan))
        expected_j = prices.energy_j(device_ms=10.0 * stages, size_bytes=option.size_bytes)
        assert option.energy_j == pytest.approx(expected_j)
        expected = 0.0
        if plan != LOCAL:
            expected = prices.money(size_bytes=option.size_bytes, cloud_ms=10.0)
            assert expected > 0
        assert option.cost == pytest.approx(expected)


def test_agreements_are_those_of_the_clouds_precision(small: Small) -> None:
    worse = Rates(agreement=Rate.of(70, 100))
    manifest = manifest_of(small)
    table = tuple(
        row if row.parsed() == LOCAL else replace(row, variants={Precision.INT8: worse})
        for row in manifest.table
    )
    manifest = replace(manifest, table=table)
    at_cut = manifest.cut(CUT).contract.id
    options = Outlook(manifest).options(
        device=in_turn(lambda _: Duration(1.0)),
        transfer=lambda p50, p95: Duration(1.0),
        cloud=lambda _: Duration(1.0),
        precision=lambda contract: Precision.INT8 if contract == at_cut else Precision.FLOAT32,
    )
    found = {option.plan: option.agreement for option in options}
    rows = {row.parsed(): row for row in manifest.table}
    assert found[SPLIT] == worse.agreement
    assert {found[plan] == rows[plan].agreement for plan in (LOCAL, CLOUD)} == {True}


def test_out_of_reach_only_the_device_is_left(small: Small) -> None:
    options = options_of(Outlook(manifest_of(small)), reachable=False)
    assert {plan for plan, option in options.items() if option.total_ms < inf} == {LOCAL}
    assert all(not math.isnan(option.variance) for option in options.values())


def test_a_stage_that_was_never_measured_never_ends(small: Small) -> None:
    options = Outlook(manifest_of(small)).options(
        device=in_turn(lambda name: Duration(inf if name == HEAD else 1.0)),
        transfer=lambda p50, p95: Duration(1.0),
        cloud=lambda _: Duration(1.0),
        waits=Waits(remote=Duration(5.0, 1.0)),
    )
    assert {o.plan for o in options if o.device_ms == inf} == {SPLIT}


@given(st.floats(0, 0.9), st.floats(0, 200), st.floats(0, 5))
def test_a_plan_is_judged_by_what_becomes_of_the_processor_when_all_take_it(
    small: Small, busy: float, remote_hz: float, overhead_ms: float
) -> None:
    """A longer plan suffers the more; the device's own is what everybody needs, and is not."""
    manifest = manifest_of(small)

    def device_ms(waits: Waits) -> dict[Plan, float]:
        options = Outlook(manifest, alone=lambda _: 4.0).options(
            device=in_turn(lambda _: Duration(4.0)),
            transfer=lambda p50, p95: Duration(1.0),
            cloud=lambda _: Duration(1.0),
            waits=waits,
        )
        return {option.plan: option.device_ms for option in options}

    quiet = device_ms(Waits())
    waits = Waits(busy=busy, remote_hz=remote_hz, overhead_ms=overhead_ms)
    crowded = device_ms(waits)
    assert crowded[LOCAL] == quiet[LOCAL]
    for plan in (SPLIT, CLOUD):
        assert quiet[plan] <= crowded[plan] < inf
    assert crowded[SPLIT] - quiet[SPLIT] >= crowded[CLOUD] - quiet[CLOUD]


@given(st.floats(0, 1), st.floats(0, 100), st.floats(0, 50), st.floats(0, 1))
def test_of_the_wait_among_others_so_much_is_expected_as_there_was(
    busy: float, remote_hz: float, alone_ms: float, waited: float
) -> None:
    """Where there is no room for all of them, it does not help that they come by the clock."""
    waits = Waits(busy=busy, remote_hz=remote_hz)

    def wait_ms(share: float) -> float:
        return waits._replace(waited=share).among_others_ms(alone_ms) - alone_ms

    least_ms, most_ms = wait_ms(0.0), wait_ms(1.0)
    expected_ms = least_ms + waited * (most_ms - least_ms)
    assert wait_ms(waited) == pytest.approx(expected_ms, abs=1e-6)
    load = busy + remote_hz * alone_ms / 1e3
    if load <= WANTED:
        assert least_ms == pytest.approx(0.0, abs=1e-9)
    elif load > WANTED + 0.01 and alone_ms > 0.1:
        assert least_ms > 0.0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 200))
def test_where_there_is_room_for_some_the_others_do_without(
    small: Small, busy: float, room: float, remote_hz: float
) -> None:
    """Those that are left share what there is; a plan for all is for all or for none."""
    manifest = manifest_of(small)
    waits = Waits(busy=busy, remote_hz=remote_hz, room=room)

    def device_ms(waits: Waits) -> float:
        return options_of(Outlook(manifest, alone=lambda _: 1.0), waits=waits)[CLOUD].device_ms

    fits = busy + remote_hz * 2.0 / 1e3 <= room  # two stages
    assert device_ms(waits._replace(for_all=True)) == (device_ms(waits) if fits else inf)
    of_all = device_ms(waits._replace(room=1.0))
    assert device_ms(waits) <= of_all
    if not fits and room < 0.9 and busy + remote_hz * 2.0 / 1e3 > room + 0.01:
        assert device_ms(waits) < of_all


def test_what_was_rebuilt_from_a_plan_stands_in_its_option(small: Small) -> None:
    manifest = manifest_of(small)
    known = exposed.privacy(manifest, {SPLIT: 0.45})
    options = options_of(Outlook(manifest, privacy=known))
    assert {plan: each.similarity for plan, each in options.items()} == {
        LOCAL: None,
        SPLIT: 0.45,
        CLOUD: None,
    }
    assert options_of(Outlook(manifest))[SPLIT].similarity is None


def with_prefixes(manifest: Manifest, *values: float, whole: float = 0.9) -> Manifest:
    """The split in layers; of k layers 100 * k bytes, at most 110 * k."""

    def rate(value: float) -> Rate:
        return Rate(value=value, standard_error=0.01, samples=1000)

    prefixes = tuple(
        Prefix(
            layers=layers,
            agreement=rate(value),
            bytes_p50=100 * layers,
            bytes_p95=110 * layers,
            variants={Precision.INT8: rate(value - 0.1)},
        )
        for layers, value in enumerate(values, start=1)
    )
    table = tuple(
        replace(row, agreement=rate(whole), prefixes=prefixes) if row.parsed() == SPLIT else row
        for row in manifest.table
    )
    return replace(manifest, table=table)


def parts_of(manifest: Manifest, *, margin_ms: float = 0.0, int8: bool = False) -> Option:
    """The split's option: a byte takes a ms, varies by a tenth; the device 10 ms, the cloud 20."""
    options = Outlook(manifest).options(
        device=lambda stages: Duration(10.0, 1.0),
        transfer=lambda p50, p95: Duration(float(p50), (p50 / 10) ** 2),
        cloud=lambda _: Duration(20.0, 4.0),
        precision=lambda _: Precision.INT8 if int8 else Precision.FLOAT32,
        margin_ms=margin_ms,
    )
    return next(option for option in options if option.plan == SPLIT)


def test_parts_of_a_frame_have_their_own_times(small: Small) -> None:
    """The device alone agrees with 60 %: one layer is worth no more than that."""
    option = parts_of(with_prefixes(manifest_of(small), 0.55, 0.7, 0.8), margin_ms=5.0)
    assert option.parts == (
        Part(2, 0.7, Duration(200.0 + 10.0 + 20.0 + 5.0, 20.0**2 + 1.0 + 4.0)),
        Part(3, 0.8, Duration(300.0 + 10.0 + 20.0 + 5.0, 30.0**2 + 1.0 + 4.0)),
    )
    assert option.least_layers == 2


def test_parts_have_the_agreement_of_the_clouds_precision(small: Small) -> None:
    option = parts_of(with_prefixes(manifest_of(small), 0.65, 0.75, 0.85), int8=True)
    assert [(part.layers, part.agreement) for part in option.parts] == [
        (2, pytest.approx(0.65)),
        (3, pytest.approx(0.75)),
    ]


@given(st.lists(st.floats(0.2, 1.0), max_size=4), st.floats(0.2, 1.0))
def test_no_part_is_taken_to_agree_more_often_than_a_longer_one(
    small: Small, values: list[float], whole: float
) -> None:
    """Chance may have it that it did."""
    option = parts_of(with_prefixes(manifest_of(small), *values, whole=whole))
    found = [part.agreement for part in option.parts] + [whole]
    assert found[:-1] == sorted(found)[: len(found) - 1]
    assert all(each > 0.6 for each in found[:-1])
    assert [part.layers for part in option.parts] == sorted(part.layers for part in option.parts)
    for part in option.parts:
        assert part.agreement == min([*values[part.layers - 1 :], whole])


def test_a_plan_that_is_not_in_layers_has_no_parts(small: Small) -> None:
    assert all(option.parts == () for option in options_of(Outlook(manifest_of(small))).values())
