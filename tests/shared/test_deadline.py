import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.deadline import MAX_BUDGET_MS, Deadline, check_budget_ms
from hybridge.shared.errors import BudgetError

budgets = st.floats(0, MAX_BUDGET_MS, exclude_min=True)
instants = st.floats(0, 1e7)


@given(budgets, instants, st.floats(0, 2))
def test_left_and_spent_make_the_budget(budget_ms: float, start_s: float, share: float) -> None:
    deadline = Deadline.after_ms(budget_ms, now_s=start_s)
    now_s = start_s + share * budget_ms / 1e3
    left_ms, spent_ms = deadline.left_ms(now_s), deadline.spent_ms(now_s)
    assert math.isclose(left_ms + spent_ms, budget_ms, abs_tol=0.01)
    if abs(left_ms) > 0.01:
        assert deadline.passed(now_s) == (left_ms < 0)


def test_the_instant_itself_has_passed() -> None:
    deadline = Deadline.after_ms(250, now_s=10.0)
    assert deadline.at_s == 10.25
    assert not deadline.passed(10.2499)
    assert deadline.passed(10.25)
    assert deadline.left_ms(10.5) == -250


@pytest.mark.parametrize(
    "budget_ms", [0.0, -0.0, -5.0, 1e9, MAX_BUDGET_MS + 1, math.nan, math.inf, -math.inf]
)
def test_what_is_no_budget(budget_ms: float) -> None:
    with pytest.raises(BudgetError, match=re.escape(f"{budget_ms:.10g} ms; ")):
        Deadline.after_ms(budget_ms, now_s=0.0)


@pytest.mark.parametrize("budget_ms", [5e-324, 1.0, MAX_BUDGET_MS])
def test_budgets_at_the_borders(budget_ms: float) -> None:
    assert check_budget_ms(budget_ms) == budget_ms
