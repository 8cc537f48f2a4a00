from hybridge.cloud.compiler.progress import Ticks, counted, within

from .watching import Watch


def test_items_are_counted_as_they_are_done() -> None:
    told: list[tuple[int, int]] = []
    items = counted("abc", lambda done, total: told.append((done, total)))
    assert told == [(0, 3)]
    assert next(items) == "a"
    assert told == [(0, 3)]
    assert list(items) == ["b", "c"]
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_several_loops_make_one_count() -> None:
    watch = Watch()
    ticks = Ticks(watch.count, 5)
    assert [*ticks.over("ab"), *ticks.over("cd")] == list("abcd")
    ticks.skip(1)
    assert watch.finished == {"": 5}


def test_parts_of_a_step_are_told_by_both_names() -> None:
    told: list[tuple[str, int, int]] = []
    within(lambda *said: told.append(said), "quantizing")("trying", 1, 4)
    assert told == [("quantizing: trying", 1, 4)]
