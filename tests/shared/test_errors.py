import grpc
import pytest

from hybridge.shared import errors
from hybridge.shared.errors import (
    MEANINGS,
    FrameCorrupt,
    HybridgeError,
    RemoteError,
    RemoteOverlong,
    RemoteRefused,
    RemoteTooLate,
    RemoteUnavailable,
    RemoteUnlike,
    RequestError,
    from_rpc,
    meaning,
    public_message,
)

Code = grpc.StatusCode


def tree(root: type[HybridgeError] = HybridgeError) -> set[type[HybridgeError]]:
    return {root}.union(*(tree(kind) for kind in root.__subclasses__()))


def test_every_error_has_its_line_in_the_table() -> None:
    ours = {kind for kind in tree() if kind.__module__ == errors.__name__}
    assert ours == set(MEANINGS)
    assert len(ours) > 15


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = (errors.__doc__ or "").split()
    assert {kind.__name__ for kind in MEANINGS} <= set(drawn)


@pytest.mark.parametrize("kind", MEANINGS, ids=lambda kind: kind.__name__)
def test_a_meaning_holds_together(kind: type[HybridgeError]) -> None:
    line = MEANINGS[kind]
    assert line.grpc_status not in (Code.OK, Code.UNKNOWN)
    assert 400 <= line.http_status < 600
    assert 64 <= line.exit_code <= 78  # sysexits(3)
    assert public_message(kind("why")) == f"{line.text}: why"
    assert public_message(kind()) == line.text
    if issubclass(kind, RequestError):
        assert line.http_status == 400
    if issubclass(kind, RemoteError):
        assert line.http_status in (502, 504)


def test_a_message_is_never_so_long_that_grpc_breaks_off_the_call() -> None:
    told = public_message(RequestError("no model " + "m" * 100_000))
    assert told.startswith("bad request: no model mmm")
    assert told.endswith("...")
    assert len(told) == 1000


def test_the_most_particular_line_counts() -> None:
    assert meaning(FrameCorrupt()).grpc_status is Code.DATA_LOSS


class Failed(grpc.RpcError):
    def __init__(self, code: Code, details: str | None) -> None:
        self._code, self._details = code, details

    def code(self) -> Code:
        return self._code

    def details(self) -> str | None:
        return self._details


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_a_failed_call_is_the_remotes_fault(code: Code) -> None:
    special = {
        Code.UNAVAILABLE: RemoteUnavailable,
        Code.CANCELLED: RemoteUnavailable,
        Code.DEADLINE_EXCEEDED: RemoteTooLate,
        Code.NOT_FOUND: RemoteUnlike,
        Code.FAILED_PRECONDITION: RemoteUnlike,
    }
    error = from_rpc(Failed(code, "in its own words"))
    assert type(error) is special.get(code, RemoteRefused)
    assert "in its own words" in str(error)
    if type(error) is RemoteRefused:
        assert code.name in str(error)
    assert type(from_rpc(Failed(code, None))) is type(error)


@pytest.mark.parametrize(("whose", "kind"), [("CLIENT", RemoteOverlong), ("SERVER", RemoteRefused)])
def test_which_side_found_a_message_too_long(whose: str, kind: type[RemoteRefused]) -> None:
    told = f"{whose}: Received message larger than max (9 vs. 8)"
    assert type(from_rpc(Failed(Code.RESOURCE_EXHAUSTED, told))) is kind
