"""A request that says when it was sent: what of its budget is kept back, and what is learnt."""

from collections.abc import Sequence

from hybridge.edge import run as run_module
from hybridge.edge.demand import Demand
from hybridge.edge.lateness import Lateness
from hybridge.edge.question import Question, Sight
from hybridge.edge.router import Decision, Light, Option
from hybridge.shared.deadline import Deadline

from ..bundles import Small, picture
from .conftest import make_agent


class Late(Lateness):
    """Late by much where nobody tells when a request was sent; notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told_ms: list[float] = []
        self.beside_ms: list[float] = []

    @property
    def reserve_ms(self) -> float:
        return 1e6

    @property
    def after_ms(self) -> float:
        return 0.0

    def arrived(self, in_ms: float) -> None:
        self.told_ms.append(in_ms)

    def took(self, beside_ms: float) -> None:
        self.beside_ms.append(beside_ms)


class Local:
    """Takes the device's own plan, and notes how much time there was."""

    def __init__(self) -> None:
        self.left_ms: list[float] = []

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        self.left_ms.append(question.left_ms)
        return Decision(options[0], 1.0, Light.FIRST, alone=True)

    def worth_waiting(
        self, running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
    ) -> bool:
        return False


async def test_nothing_is_kept_back_for_a_way_in_that_was_told(small: Small) -> None:
    lateness, policy = Late(), Local()
    agent = make_agent(small, None, policy=policy, clock=lambda: 100.0)
    agent.lateness = lateness
    deadline = Deadline.after_ms(10_000.0, now_s=99.0)
    await agent.answer(picture(0), deadline, way_in_ms=1_000.0)
    assert policy.left_ms == [9_000.0 - run_module.RESERVE_MS]
    assert (lateness.told_ms, lateness.beside_ms) == ([1_000.0], [0.0])
    await agent.answer(picture(0), deadline)
    assert policy.left_ms[1:] == [9_000.0 - 3_000.0]
    assert (lateness.told_ms, lateness.beside_ms) == ([1_000.0], [0.0, 1_000.0])
    agent.close()
