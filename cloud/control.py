"""Which models are served: told, loaded and unloaded while requests run."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..shared.bundle import list_bundles
from ..shared.errors import BundleError, ModelFault, NotAllowed, RequestError, UnknownModel
from .config import CloudConfig
from .inference import Inference
from .model import ServedModel
from .repository import load_version

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    version: str
    path: Path


class ModelControl:
    """Loads and unloads models where that is allowed; one change at a time."""

    def __init__(self, inference: Inference, config: CloudConfig) -> None:
        self._inference = inference
        self._config = config
        self._reasons: dict[tuple[str, str], str] = {}
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()

    async def index(self, *, ready_only: bool = False) -> list[dict[str, Any]]:
        """The fields of RepositoryIndexResponse.ModelIndex, for each version there is."""
        there = await asyncio.to_thread(self._versions)
        served = {(model.name, model.version) for model in self._inference.repository}
        return [
            {"name": name, "version": version, **self._state(name, version, served)}
            for name, version in sorted({(each.name, each.version) for each in there} | served)
            if not ready_only or (name, version) in served
        ]

    async def load(self, name: str, *, parameters: bool = False) -> None:
        """Serves all good versions of a model as they are on disk now.

        What is served goes on until the new is ready, and stays if none of the new is good.
        """
        self._allow("load")
        if parameters:
            raise RequestError("load takes no parameters here: a bundle holds all there is")
        await self._to_the_end(self._load(name))

    async def unload(self, name: str) -> None:
        """Serves a model no more; returns once its accepted requests have ended."""
        self._allow("unload")
        await self._to_the_end(self._unload(name))

    async def _to_the_end(self, change: Coroutine[None, None, None]) -> None:
        """A change that has begun is finished, also if whoever asked has left."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _load(self, name: str) -> None:
        async with self._changing:
            there = [each for each in await asyncio.to_thread(self._versions) if each.name == name]
            if not there:
                raise UnknownModel(f"{name!r} is not in the repository")
            await self._replace(name, await asyncio.to_thread(self._open_all, there))

    async def _unload(self, name: str) -> None:
        async with self._changing:
            self._inference.repository.versions(name)
            await self._replace(name, ())

    async def _replace(self, name: str, models: tuple[ServedModel, ...]) -> None:
        repository = self._inference.repository
        before = [model for model in repository if model.name == name]
        for model in models:
            if model not in before:
                await self._inference.serve(model)
        repository.put(name, models)
        for model in before:
            if model not in models:
                await self._inference.retire(model)
        log.info("%s: %s", name, ", ".join(each.version for each in models) or "unloaded")

    def _open_all(self, there: list[_Version]) -> tuple[ServedModel, ...]:
        served = {(model.name, model.version): model for model in self._inference.repository}
        models: list[ServedModel] = []
        for each in reversed(there):
            key = (each.name, each.version)
            if key in served:  # a bundle never changes; its next state is the next version
                models.append(served[key])
                continue
            try:
                models.append(self._open(each.path))
                self._reasons.pop(key, None)
            except (BundleError, ModelFault) as error:
                log.warning("bundle %s/%s is not served: %s", *key, error)
                self._reasons[key] = str(error)
        if not models:
            raise BundleError(self._reasons[there[-1].name, there[-1].version])
        return tuple(models)

    def _open(self, path: Path) -> ServedModel:
        config = self._config
        return load_version(
            path,
            trust=config.trust,
            max_batch=config.max_batch,
            precision=config.precision,
            runtime=config.runtime,
        )

    def _versions(self) -> list[_Version]:
        """Oldest first."""
        return list(self._walk())

    def _walk(self) -> Iterator[_Version]:
        for name, paths in list_bundles(self._config.bundles).items():
            for path in paths:
                yield _Version(name, path.name, path)

    def _state(self, name: str, version: str, served: set[tuple[str, str]]) -> dict[str, str]:
        if (name, version) in served:
            return {"state": "READY", "reason": ""}
        return {
            "state": "UNAVAILABLE",
            "reason": self._reasons.get((name, version), "not loaded"),
        }

    def _allow(self, verb: str) -> None:
        if not self._config.model_control:
            raise NotAllowed(f"this server does not {verb} models; start it with --model-control")
