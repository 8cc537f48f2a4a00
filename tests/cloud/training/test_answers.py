from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hybridge.cloud.training.answers import AnswerStore, Floats, picture_key
from hybridge.shared.errors import BuildError


def answer(number: int) -> Floats:
    return np.array([number, -number, 0.5], np.float32)


def key(number: int) -> bytes:
    return picture_key(b"%d" % number)


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore(tmp_path / "sub" / "answers", classes=3)


def test_answers_come_back_in_the_order_asked_for(store: AnswerStore) -> None:
    for number in range(5):
        store.append(key(number), answer(number))
    assert store.read([key(3), key(0), key(3)]).tolist() == [answer(n).tolist() for n in (3, 0, 3)]
    assert len(store.positions()) == 5


def test_nothing_is_known_at_first(store: AnswerStore) -> None:
    assert store.positions() == {}
    with pytest.raises(KeyError):
        store.read([key(1)])


@pytest.mark.parametrize("left", [1, 20, 47])
def test_a_half_written_answer_is_cut_off(store: AnswerStore, left: int) -> None:
    store.append(key(1), answer(1))
    store.append(key(2), answer(2))
    content = store.file.read_bytes()
    assert len(content) == 2 * 48
    store.file.write_bytes(content[: 48 + left])
    assert list(store.positions()) == [key(1)]
    store.append(key(3), answer(3))
    assert list(store.positions()) == [key(1), key(3)]
    assert store.read([key(3)]).tolist() == [answer(3).tolist()]


def test_a_damaged_answer_counts_as_absent(store: AnswerStore) -> None:
    store.append(key(1), answer(1))
    store.append(key(2), answer(2))
    content = bytearray(store.file.read_bytes())
    content[40] ^= 1
    store.file.write_bytes(content)
    assert list(store.positions()) == [key(2)]


def test_many_may_append_at_once(store: AnswerStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.append(key(number), answer(number)), range(200)))
    assert store.read([key(n) for n in range(200)])[:, 0].tolist() == list(range(200))


def test_an_answer_of_another_size_is_refused(store: AnswerStore) -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\), not \(3,\)"):
        store.append(key(1), np.zeros(2, np.float32))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "sub").write_text("a file")
    with pytest.raises(BuildError, match="cannot write"):
        AnswerStore(tmp_path / "sub" / "answers", classes=3).append(key(1), answer(1))


def test_keys_tell_content_and_view() -> None:
    assert len({picture_key(b"a"), picture_key(b"b"), picture_key(b"a", view=1)}) == 3
