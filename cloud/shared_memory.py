"""Tensors in memory that a client on this machine shares, instead of in its messages.

The system shared-memory extension of the Open Inference Protocol (Triton): a client names a POSIX
object, then says of a tensor where it lies in it. Objects are read and written as files and never
mapped: a client that shrinks one gets an error, where a mapping would end the process.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..shared.errors import NotAllowed, RequestError, TensorError
from ..shared.oip import InferResponse, InputTensor, Region, RequestedOutput
from ..shared.security import MAX_MESSAGE_BYTES

_FOLDER = "/dev/shm"  # noqa: S108  where Linux keeps POSIX objects
_MOST_REGIONS = 256


@dataclass(frozen=True, slots=True)
class _Object:
    """A registered region, and the open file of the object that it lies in."""

    key: str
    offset: int
    size_bytes: int
    file: int


class SharedMemory:
    """The regions that clients have named. All methods belong to one event loop."""

    def __init__(self, *, allowed: bool) -> None:
        self.allowed = allowed
        self._objects: dict[str, _Object] = {}

    def register(self, name: str, *, key: str, offset: int, size_bytes: int) -> None:
        """Names a region; RequestError unless the object is there and large enough."""
        self._allow()
        object_name = key.removeprefix("/")
        if not name or name in self._objects:
            raise RequestError(f"region {name!r} {'is there already' if name else 'has no name'}")
        if len(self._objects) >= _MOST_REGIONS:
            raise RequestError(f"there are {_MOST_REGIONS} regions already; unregister some")
        if not object_name or "/" in object_name or object_name in (".", "..") or not size_bytes:
            raise RequestError(f"{size_bytes} bytes of {key!r} are no region of an object")
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(f"{_FOLDER}/{object_name}", flags)
        except (OSError, ValueError) as error:
            raise RequestError(f"shared memory {key!r} cannot be opened: {error}") from error
        there = os.fstat(file).st_size
        if offset + size_bytes > there:
            os.close(file)
            raise RequestError(
                f"shared memory {key!r} has {there} bytes, not {size_bytes} from {offset} on"
            )
        self._objects[name] = _Object(key, offset, size_bytes, file)

    def unregister(self, name: str) -> None:
        """Forgets a region if it is there, or with an empty name all."""
        for each in [name] if name else list(self._objects):
            if found := self._objects.pop(each, None):
                os.close(found.file)

    def status(self, name: str) -> list[dict[str, Any]]:
        """The fields of RegionStatus of one region, or with an empty name of all."""
        if name and name not in self._objects:
            raise RequestError(f"there is no region {name!r}")
        return [
            {"name": each, "key": at.key, "offset": at.offset, "byte_size": at.size_bytes}
            for each, at in self._objects.items()
            if name in ("", each)
        ]

    def fetch(self, inputs: Iterable[InputTensor]) -> Iterator[InputTensor]:
        """The inputs, what lies in regions read; RequestError or TensorError if it cannot be."""
        for tensor in inputs:
            yield (
                msgspec.structs.replace(tensor, raw=self._read(tensor.region))
                if tensor.region
                else tensor
            )

    def place(self, response: InferResponse, wanted: Sequence[RequestedOutput]) -> InferResponse:
        """The response with those outputs written to regions that were wanted there."""
        if not wanted:
            return response
        placed = {
            output.name: region for output in wanted if (region := Region.of(output.parameters))
        }
        for name, region in placed.items():
            array = response.outputs[name]
            if array.nbytes > region.size_bytes:
                raise TensorError(
                    f"output {name!r} takes {array.nbytes} bytes, not {region.size_bytes}"
                )
            at = self._find(region)
            try:
                written = os.pwrite(at.file, array.tobytes(), at.offset + region.offset)
            except OSError as error:  # it has shrunk, and memory is full
                raise TensorError(f"region {region.name!r} cannot be written: {error}") from error
            if written != array.nbytes:
                raise TensorError(f"region {region.name!r} has shrunk; register it anew")
        return msgspec.structs.replace(response, placed=placed) if placed else response

    def _read(self, region: Region) -> bytes:
        if region.size_bytes > MAX_MESSAGE_BYTES:
            raise TensorError(f"a tensor of {region.size_bytes} bytes is larger than a message")
        at = self._find(region)
        content = os.pread(at.file, region.size_bytes, at.offset + region.offset)
        if len(content) != region.size_bytes:
            raise TensorError(f"region {region.name!r} has shrunk; register it anew")
        return content

    def _find(self, region: Region) -> _Object:
        self._allow()
        at = self._objects.get(region.name)
        if at is None:
            raise RequestError(f"there is no region {region.name!r}; register it first")
        if region.offset + region.size_bytes > at.size_bytes:
            raise TensorError(
                f"{region.size_bytes} bytes from {region.offset} on are outside region "
                f"{region.name!r} of {at.size_bytes}"
            )
        return at

    def _allow(self) -> None:
        if not self.allowed:
            raise NotAllowed("this server shares no memory; start it with --shared-memory")
