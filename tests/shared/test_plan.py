import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.plan import Plan

names = st.text("abcXYZ019._-", min_size=1, max_size=12)
plans = st.one_of(
    st.just(Plan.local()),
    st.builds(Plan.cloud, names),
    st.builds(lambda cut, head, codec: Plan.split(cut, head=head, codec=codec), *[names] * 3),
)


@given(plans)
def test_names_come_back(plan: Plan) -> None:
    assert Plan.parse(str(plan)) == plan


@given(st.lists(plans))
def test_plans_have_an_order(some: list[Plan]) -> None:
    assert sorted(some) == sorted(sorted(some, key=str))


@pytest.mark.parametrize(
    "text",
    ["", "local:", "local:x", "cloud", "cloud:", "split", "split:a/b", "split:a/b/c/d",
     "split:a//c", "split:/b/c", "remote:x", "LOCAL"],
)  # fmt: skip
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(ValueError, match="no plan; plans are local, cloud:CODEC"):
        Plan.parse(text)
