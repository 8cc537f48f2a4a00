import random

import pytest
from _agent_cpu import BATCH, ServiceCpu, cheapest_split, insisting_on, split_agent
from _decisions import PLANS, as_many
from agent_overhead import (
    BEYOND_PEER,
    GRPC_JPEG,
    GRPC_PIXELS,
    IN_PROCESS,
    PEER,
    Taken,
    main,
    take_turns,
    without,
)

from hybridge.edge.router import Option
from hybridge.edge.stage_times import StageTimes
from hybridge.shared.manifest import Rate
from hybridge.shared.plan import Plan

from ..bundles import CLOUD, LOCAL, SPLIT, Small, picture, stage_times


def make_taken() -> Taken:
    """One round: bare 2 ms, normalization 0.5, decode 1, resize 1.5, and 0.25 for each layer."""
    taken = Taken(decode=[1.0], normalize=[0.5], bare=[2.0], peer=[3.5])
    steps = {"resize_light": 1.5, "light": 2.75}
    taken.ways[IN_PROCESS].add(whole_ms=4.75, agent_ms=4.5, steps_ms=steps)
    taken.ways[GRPC_PIXELS].add(whole_ms=6.0, agent_ms=4.5, steps_ms=steps)
    taken.ways[GRPC_JPEG].add(whole_ms=7.5, agent_ms=6.0, steps_ms={"decode": 1.25, **steps})
    return taken


def test_overheads_leave_what_is_not_ours_out() -> None:
    assert make_taken().overheads() == {
        IN_PROCESS: [0.75],
        GRPC_PIXELS: [2.0],
        GRPC_JPEG: [2.5],
        PEER: [1.0],
        BEYOND_PEER: [1.0],
    }


def test_clearing_forgets_every_turn() -> None:
    taken = make_taken()
    taken.clear()
    assert all(samples == [] for samples in taken.overheads().values())


def test_rounds_of_unequal_number_are_a_defect() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        without([1.0, 2.0], [0.5])


async def test_every_turn_is_taken_once_a_round_in_changing_order() -> None:
    taken: list[str] = []

    async def waits() -> None:
        taken.append("c")

    turns = [lambda: taken.append("a"), lambda: taken.append("b"), waits]
    await take_turns("testing", turns, rounds=20)
    rounds = [tuple(taken[at : at + 3]) for at in range(0, len(taken), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3
    assert rounds[0] == tuple(random.Random(0).sample("abc", 3))


def test_arguments_it_does_not_know_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--rounds", "many"])
    assert stopped.value.code == 2
    assert "--rounds" in capsys.readouterr().err


def an_option(plan: Plan, size_bytes: int) -> Option:
    rate = Rate(value=0.9, standard_error=0.01, samples=100)
    return Option(plan, rate, size_bytes, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("remote", [2, PLANS - 1, 50])
def test_any_table_is_made_one_of_as_many_plans(remote: int) -> None:
    local = an_option(Plan.local(), 0)
    others = [an_option(Plan.cloud(f"jpeg-{at + 1}"), 100 * at) for at in range(remote)]
    many = as_many([*others, local], PLANS)
    assert len(many) == PLANS
    assert many.count(local) == 1
    assert len({(each.plan, each.size_bytes) for each in many}) == PLANS


async def test_the_agents_own_time_is_what_its_stages_did_not_take(small: Small) -> None:
    times = StageTimes(stage_times((LOCAL, SPLIT, CLOUD)))
    splitting, uplink = await split_agent(small.models, times, picture(0))
    assert splitting.plan == cheapest_split(small.bundle.manifest) == SPLIT
    for _ in range(3):
        await splitting.answers()
        splitting.stages()
    assert len(splitting.own_ms()) == 3
    assert uplink.ledger.total_bytes >= 3 * BATCH * 400
    splitting.with_agent_ms, splitting.bare_ms = [3.0, 4.0], [2.5, 3.0]
    assert splitting.own_ms() == [0.5, 1.0]
    splitting.clear()
    assert splitting.own_ms() == []
    splitting.agent.close()
    await uplink.shutdown()


async def test_through_the_service_the_same_is_measured(small: Small) -> None:
    times = StageTimes(stage_times((LOCAL, SPLIT, CLOUD)))
    splitting, uplink = await split_agent(small.models, times, picture(0))
    served = ServiceCpu(splitting.agent, small.models, picture(0), SPLIT)
    await served.answers()
    served.stages()
    assert len(served.own_ms()) == 1
    assert uplink.ledger.total_bytes >= BATCH * 400
    served.plan = CLOUD
    with pytest.raises(RuntimeError, match="answered, not cloud"):
        await served.answers()
    splitting.agent.close()
    await uplink.shutdown()


async def test_an_answer_of_another_plan_is_no_measurement(small: Small) -> None:
    times = StageTimes(stage_times((LOCAL, SPLIT, CLOUD)))
    splitting, uplink = await split_agent(small.models, times, picture(0))
    splitting.agent.policy = insisting_on(CLOUD, splitting.agent)
    with pytest.raises(RuntimeError, match="answered, not split"):
        await splitting.answers()
    splitting.agent.close()
    await uplink.shutdown()
