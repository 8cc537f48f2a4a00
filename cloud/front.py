"""What every protocol of the cloud stands on: its models once they are there, and its own state."""

import asyncio
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..shared import oip
from ..shared.errors import DeadlineUnmet, RequestError, UnknownModel
from .control import ModelControl
from .inference import Inference
from .model_statistics import model_statistics
from .room import Room
from .shared_memory import SharedMemory
from .upload import Upload

SERVER_NAME = "hybridge-cloud"
EXTENSIONS = (
    *("binary_tensor_data", "model_configuration", "model_repository", "schedule_policy"),
    "statistics",
)
SHARED_MEMORY = "system_shared_memory"
"""Where it is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The models, what may be done with them, and the clock's reading when they were there."""

    inference: Inference
    control: ModelControl
    since_s: float

    @property
    def shared_memory(self) -> SharedMemory:
        return self.inference.shared_memory

    def statistics(self, name: str, version: str) -> dict[str, Any]:
        """The fields of ModelStatisticsResponse."""
        return model_statistics(self.inference, name=name, version=version)


class Front:
    """Knows no transport. All methods belong to one event loop."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.draining = asyncio.Event()
        """Set once nothing new is to be taken from connections that stay open."""
        self.now: Served | None = None
        """The models, once they are there."""
        self._served: asyncio.Future[Served] = asyncio.get_running_loop().create_future()

    def open(self, served: Served) -> None:
        """Lets in what has waited for the models."""
        self.now = served
        self._served.set_result(served)

    def close(self) -> None:
        """Takes nothing new; whoever waits for models that do not come any more is let go."""
        self.draining.set()
        self._served.cancel()

    @property
    def ready(self) -> bool:
        return self.now is not None and not self.draining.is_set()

    async def served(self, left_s: float | None) -> Served:
        """The models, waiting for them at most `left_s`; DeadlineUnmet if they are not there."""
        if self.now is not None:
            return self.now
        try:
            async with asyncio.timeout(left_s):
                return await asyncio.shield(self._served)
        except TimeoutError:
            raise DeadlineUnmet("the models are still being loaded") from None

    async def infer(
        self,
        request: oip.InferRequest,
        left_s: float | None,
        *,
        arrived_s: float | None = None,
        upload: Upload | None = None,
    ) -> oip.InferResponse:
        """The answer to a request, whose transport ends it after `left_s`."""
        served = self.now or await self.served(left_s)
        return await served.inference.infer(
            request, transport_left_s=left_s, arrived_s=arrived_s, upload=upload
        )

    def misread(self, error: RequestError) -> None:
        """Counts what is no request, whichever model it was meant for."""
        if self.now is not None:
            self.now.inference.statistics.misread(error)

    def metadata(self) -> dict[str, Any]:
        """The fields of ServerMetadataResponse."""
        shares = self.now is not None and self.now.shared_memory.allowed
        extensions = (*EXTENSIONS, SHARED_MEMORY) if shares else EXTENSIONS
        return {"name": SERVER_NAME, "version": __version__, "extensions": extensions}

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a model answers requests now."""
        if self.now is None:
            return False
        try:
            return self.now.inference.repository.model(name, version).ready
        except UnknownModel:
            return False
