import json

import msgspec
import pytest

from hybridge.devices import boards as boards_module
from hybridge.devices.boards import Board, Kind, board_names, read_board, read_data, read_reference
from hybridge.shared.errors import ConfigError

ONE = {
    "name": "one", "title": "One", "processor": "P", "architecture": "aarch64", "cores": 4,
    "memory_bytes": 1, "features": [], "sources": {"s": {"title": "T", "url": "https://x.org"}},
    "evidence": [
        {"kinds": ["int8"], "benchmark": "net_ms", "published": 8.0, "source": "s",
         "scaled": [{"by": 3, "over": 2, "why": "threads"}, {"by": 1, "over": 2, "why": "MHz"}]},
        {"kinds": ["int8", "float"], "benchmark": "other_ms", "published": 96.0, "source": "s"},
        {"kinds": ["resize", "encode"], "benchmark": "rate_mips", "published": 500, "source": "s"},
    ],
}  # fmt: skip


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board whose arithmetic can be done in the head."""
    reference = msgspec.structs.replace(
        read_reference(), benchmarks={"net_ms": 2.0, "other_ms": 8.0, "rate_mips": 1000.0}
    )
    monkeypatch.setattr(boards_module, "read_reference", lambda: reference)
    return msgspec.convert(ONE, Board)


def test_a_factor_is_the_geometric_mean_of_its_evidence(one: Board) -> None:
    assert one.ratios(Kind.INT8) == {"net_ms (s)": 3.0, "other_ms (s)": 12.0}
    assert one.factor(Kind.INT8) == pytest.approx(6.0)
    assert one.factor(Kind.FLOAT) == pytest.approx(12.0)
    assert one.factor(Kind.ENCODE) == pytest.approx(2.0)


def test_how_unsure_a_factor_is(one: Board) -> None:
    assert one.unsure(Kind.INT8) == pytest.approx(2.0)
    assert one.unsure(Kind.FLOAT) == 1.4
    assert one.unsure(Kind.ENCODE) == 2.0


@pytest.mark.parametrize("name", board_names())
def test_every_board_says_who_says_so(name: str) -> None:
    board = read_board(name)
    assert board.name == name
    assert {each.source for each in board.evidence} == set(board.sources)
    assert all(each.benchmark in read_reference().benchmarks for each in board.evidence)
    assert all(scale.why for each in board.evidence for scale in each.scaled)
    for kind in Kind:
        assert 1 < board.factor(kind) < 100
        assert board.unsure(kind) < 2.5


def test_slower_boards_are_slower() -> None:
    def factor(name: str) -> float:
        return read_board(name).factor(Kind.INT8)

    assert factor("raspberry-pi-5") < factor("raspberry-pi-4") < factor("raspberry-pi-zero-2-w")


def test_no_such_board() -> None:
    with pytest.raises(ConfigError, match=r"no board 'reference' is known \(there: coral-dev"):
        read_board("reference")


@pytest.mark.parametrize(
    "change",
    [
        {"evidence": [{**ONE["evidence"][0], "kinds": []}]},
        {"evidence": [{**ONE["evidence"][0], "published": 0}]},
        {"sources": {"s": {"title": "T", "url": "from memory"}}},
    ],
)  # fmt: skip
def test_no_source_no_board(change: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**ONE, **change}, Board)


def test_the_files_are_as_they_would_be_written() -> None:
    for name in board_names():
        text = read_data(f"{name}.json").decode()
        assert text == json.dumps(json.loads(text), indent=2) + "\n"
