"""Everything that can go wrong, in one tree, and what each fault means to whoever meets it.

HybridgeError
├── RequestError            the caller's request cannot be answered as it is
│   ├── BudgetError         a latency budget that is no time anybody could keep
│   ├── PictureError        not a picture, a damaged one, or one too large
│   ├── TensorError         wrong name, shape, dtype or number of bytes
│   └── FrameError          a frame whose header makes no sense
│       └── FrameCorrupt    a frame whose checksum does not match
├── UnknownModel            no such model, or no such version of it
├── UnknownContract         the cloud has no tail for this head
├── NotAllowed              a request that this server was not set up to obey
├── DeadlineUnmet           was not answered in time
│   └── DeadlineRefused     cannot be, and was not accepted
│       └── ShareUsedUp     cannot be while others get their share of the instances
├── Overloaded              a bounded queue is full
├── ModelFault              a model runtime failed on an input that was well formed
├── InstanceLost            what computed the answer died, and there was no time for another try
├── RemoteError             the other side's fault, never ours
│   ├── RemoteUnavailable   nobody answers there
│   ├── RemoteTooLate       it refused, or missed, the deadline
│   └── RemoteRefused       it answered with an error of its own
│       ├── RemoteUnlike    it has another bundle: no such model, version or contract
│       └── RemoteOverlong  it began an answer that is longer than any of the model's
├── BundleError             a bundle that is incomplete, altered or not trusted
├── BuildError              a model or data set from which no bundle can be made
└── ConfigError             a setting that cannot work
"""

from dataclasses import dataclass

import grpc


class HybridgeError(Exception):
    """The root: catching this catches every fault the framework raises on purpose."""


class RequestError(HybridgeError):
    """The request cannot be answered as it is; sending it again unchanged will not help."""


class BudgetError(RequestError):
    """A latency budget outside what the service accepts."""


class PictureError(RequestError):
    """Bytes that are not a whole picture of an accepted format and size."""


class TensorError(RequestError):
    """A tensor whose name, shape, dtype or size in bytes is not what the model takes."""


class FrameError(RequestError):
    """A frame whose header cannot be believed."""


class FrameCorrupt(FrameError):
    """A frame whose checksum does not match its bytes."""


class UnknownModel(HybridgeError):
    """No model of that name, or no such version of it, is served here."""


class UnknownContract(HybridgeError):
    """No tail here belongs to the head that made the frame."""


class NotAllowed(HybridgeError):
    """The request is understood, and whoever runs this server has not allowed it."""


class DeadlineUnmet(HybridgeError):
    """The request cannot be, or was not, answered before its deadline."""


class DeadlineRefused(DeadlineUnmet):
    """The request is not even tried, because its deadline is forecast to pass before."""


class ShareUsedUp(DeadlineRefused):
    """The request is not even tried, because its model has had more than its share lately."""


class Overloaded(HybridgeError):
    """A bounded queue is full."""


class ModelFault(HybridgeError):
    """A model runtime failed although its input was well formed."""


class InstanceLost(HybridgeError):
    """What computed the answer died, and the answer could not be had again in time."""


class RemoteError(HybridgeError):
    """The other side of a connection is at fault."""


class RemoteUnavailable(RemoteError):
    """Nobody answers at the other end, or the connection broke."""


class RemoteTooLate(RemoteError):
    """The other side refused or missed the deadline."""


class RemoteRefused(RemoteError):
    """The other side answered with an error that is neither of the above."""


class RemoteUnlike(RemoteRefused):
    """The other side has no such model, version or contract: another bundle than ours."""


class RemoteOverlong(RemoteRefused):
    """The other side began an answer longer than is taken; this side left it unread."""


class BundleError(HybridgeError):
    """A bundle that is incomplete, altered, of an unknown format or not trusted."""


class BuildError(HybridgeError):
    """Models or data from which no bundle can be made."""


class ConfigError(HybridgeError):
    """A setting that cannot work, with what to change."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a fault is called on each surface; `text` is prefixed to the error's own message."""

    grpc_status: grpc.StatusCode
    http_status: int
    exit_code: int
    text: str


_CODE = grpc.StatusCode

MEANINGS: dict[type[HybridgeError], Meaning] = {
    HybridgeError: Meaning(_CODE.INTERNAL, 500, 70, "internal error"),
    RequestError: Meaning(_CODE.INVALID_ARGUMENT, 400, 65, "bad request"),
    BudgetError: Meaning(_CODE.INVALID_ARGUMENT, 400, 65, "bad latency budget"),
    PictureError: Meaning(_CODE.INVALID_ARGUMENT, 400, 65, "bad picture"),
    TensorError: Meaning(_CODE.INVALID_ARGUMENT, 400, 65, "bad tensor"),
    FrameError: Meaning(_CODE.INVALID_ARGUMENT, 400, 65, "bad frame"),
    FrameCorrupt: Meaning(_CODE.DATA_LOSS, 400, 65, "corrupt frame"),
    UnknownModel: Meaning(_CODE.NOT_FOUND, 404, 66, "unknown model"),
    UnknownContract: Meaning(_CODE.FAILED_PRECONDITION, 409, 66, "unknown contract"),
    NotAllowed: Meaning(_CODE.PERMISSION_DENIED, 403, 77, "not allowed"),
    DeadlineUnmet: Meaning(_CODE.DEADLINE_EXCEEDED, 504, 75, "deadline not met"),
    DeadlineRefused: Meaning(_CODE.DEADLINE_EXCEEDED, 504, 75, "deadline not met"),
    ShareUsedUp: Meaning(_CODE.DEADLINE_EXCEEDED, 504, 75, "deadline not met"),
    Overloaded: Meaning(_CODE.RESOURCE_EXHAUSTED, 503, 75, "overloaded"),
    ModelFault: Meaning(_CODE.INTERNAL, 500, 70, "model failed"),
    InstanceLost: Meaning(_CODE.UNAVAILABLE, 503, 69, "computing was cut short"),
    RemoteError: Meaning(_CODE.UNAVAILABLE, 502, 69, "remote fault"),
    RemoteUnavailable: Meaning(_CODE.UNAVAILABLE, 502, 69, "remote unavailable"),
    RemoteTooLate: Meaning(_CODE.DEADLINE_EXCEEDED, 504, 75, "remote too late"),
    RemoteRefused: Meaning(_CODE.UNAVAILABLE, 502, 69, "remote refused"),
    RemoteUnlike: Meaning(_CODE.UNAVAILABLE, 502, 69, "remote refused"),
    RemoteOverlong: Meaning(_CODE.UNAVAILABLE, 502, 69, "remote refused"),
    BundleError: Meaning(_CODE.FAILED_PRECONDITION, 500, 65, "bad bundle"),
    BuildError: Meaning(_CODE.FAILED_PRECONDITION, 500, 65, "cannot build"),
    ConfigError: Meaning(_CODE.FAILED_PRECONDITION, 500, 78, "bad configuration"),
}
"""One line per error; exit codes follow BSD sysexits(3). A test holds that none is missing."""


_MOST_CHARACTERS = 1000
"""gRPC breaks off a call whose status has a longer message than the caller takes, 8 to 16 KB."""


def meaning(error: HybridgeError) -> Meaning:
    """The table's line for an error."""
    return MEANINGS[type(error)]


def public_message(error: HybridgeError) -> str:
    """One line that may be shown to whoever sent the request."""
    detail = str(error)
    text = meaning(error).text
    line = f"{text}: {detail}" if detail else text
    return line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 3]}..."


_OVERLONG = "CLIENT: Received message larger than max"
"""gRPC's own words where it is this side that refuses; the status is that of a full queue too."""


def from_rpc(error: grpc.RpcError) -> RemoteError:
    """A failed call as this side sees it: the remote's fault, with its own words."""
    return from_status(error.code(), error.details() or "")


def from_status(code: grpc.StatusCode, details: str) -> RemoteError:
    """A status as this side sees it, however it came."""
    if code in (_CODE.UNAVAILABLE, _CODE.CANCELLED):
        return RemoteUnavailable(details)
    if code is _CODE.DEADLINE_EXCEEDED:
        return RemoteTooLate(details)
    if code is _CODE.RESOURCE_EXHAUSTED and _OVERLONG in details:
        return RemoteOverlong(f"{code.name}: {details}")
    unlike = code in (_CODE.NOT_FOUND, _CODE.FAILED_PRECONDITION)
    return (RemoteUnlike if unlike else RemoteRefused)(f"{code.name}: {details}")
