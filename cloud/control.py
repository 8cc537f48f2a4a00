"""Which models are served: told, loaded, switched and unloaded while requests run."""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from ..shared.errors import (
    BundleError,
    ConfigError,
    HybridgeError,
    ModelFault,
    NotAllowed,
    RequestError,
    UnknownModel,
)
from .choices import choose, chosen
from .inference import Inference
from .model import Model
from .opening import Opened, in_order, open_one
from .shelf import Found, Shelf, Snapshot
from .stage import Stage
from .trial import try_out

log = logging.getLogger(__name__)

VERSION = "version"
"""The parameter of a load that makes a version the default: a number, or one of these words."""
PREVIOUS, NEWEST = "previous", "newest"

Parameters = Mapping[str, object]

_NICE = 10
_Key = tuple[str, str]
_T = TypeVar("_T")

Try = Callable[[Shelf, Found], Awaitable[None]]


class ModelControl:
    """Loads and unloads models where that is allowed; one change at a time.

    A new version is tried in a process of its own (`trial.py`), loaded and warmed up behind the
    traffic, and only then switched to; the old ones end with their last request.
    """

    def __init__(
        self,
        inference: Inference,
        shelf: Shelf,
        *,
        allowed: bool,
        opened: Opened,
        try_out: Try = try_out,
    ) -> None:
        """`opened` is what the repository was made of."""
        self._inference = inference
        self._shelf = shelf
        self._allowed = allowed
        self._reasons = dict(opened.reasons)
        self._seen = opened.seen
        self._marks = {
            each.key: each.mark for seen in opened.seen.values() for each in seen.versions
        }
        self._states: dict[_Key, str] = {}
        self._try_out = try_out
        self._pool = ThreadPoolExecutor(1, "new-version", initializer=_stand_back)
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()

    async def index(self, *, ready_only: bool = False) -> list[dict[str, Any]]:
        """The fields of RepositoryIndexResponse.ModelIndex, for each version there is."""
        with _reading():
            there, choices = await asyncio.to_thread(self._on_disk)
        served = {(model.name, model.version) for model in self._inference.repository}
        keys = {*there, *served, *self._states}
        return [
            {"name": name, "version": version, **self._state((name, version), served, choices)}
            for name, version in sorted(keys, key=lambda key: (key[0], int(key[1])))
            if not ready_only or (name, version) in served
        ]

    async def load(self, name: str, *, parameters: Parameters | None = None) -> None:
        """Serves all good versions of a model as they are on disk now.

        What is served goes on until the new is ready, and stays if none of the new is good. With
        the parameter `version` nothing but that version is loaded, if need be, and it becomes the
        default for ever; `newest` ends that, `previous` is the good one before the default.
        """
        self._allow("load")
        given = dict(parameters or {})
        version = str(given.pop(VERSION, ""))
        if given:
            raise RequestError(f"load takes no parameter {min(given)!r} here, only {VERSION!r}")
        with _reading():
            await self._to_the_end(self._choose(name, version) if version else self._load(name))

    async def unload(self, name: str) -> None:
        """Serves a model no more; returns once its accepted requests have ended."""
        self._allow("unload")
        await self._to_the_end(self._unload(name))

    async def follow(self, *, every_s: float) -> None:
        """Follows what changes on disk, for ever.

        A directory that cannot be read or has nothing in it is taken for one that is away.
        """
        before = self._seen
        while True:
            await asyncio.sleep(every_s)
            try:
                if now := await asyncio.to_thread(self._shelf.snapshot):
                    await self._change(before, now)
                    before = now
            except OSError as error:
                log.warning("the models are served as before: %s", error)

    async def _change(self, before: Snapshot, now: Snapshot) -> None:
        """Serves what is there now instead of what was."""
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        for name in changed:
            try:
                await self._to_the_end(self._load(name) if name in now else self._unload(name))
            except HybridgeError as error:
                log.warning("%s is served as before: %s", name, error)

    async def close(self) -> None:
        """Loads nothing more."""
        changes = [*self._changes]
        for change in changes:
            change.cancel()
        await asyncio.gather(*changes, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _to_the_end(self, change: Coroutine[None, None, None]) -> None:
        """A change that has begun is finished, also if whoever asked has left."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _load(self, name: str) -> None:
        async with self._changing:
            await self._load_all(name)

    async def _load_all(self, name: str) -> None:
        there = (await asyncio.to_thread(self._shelf.snapshot)).get(name)
        if there is None:
            raise UnknownModel(f"{name!r} is not in the repository")
        opened = [await self._open(found) for found in there.versions]
        if models := [model for model in opened if model is not None]:
            await self._replace(name, in_order(models, default=there.chosen))
        else:
            raise BundleError(self._reasons[there.versions[-1].key])

    async def _choose(self, name: str, version: str) -> None:
        async with self._changing:
            folder = await asyncio.to_thread(self._shelf.folder, name)
            if version == NEWEST:
                choose(folder, "")
                await self._load_all(name)
                return
            for found in await asyncio.to_thread(self._candidates, name, version):
                if model := await self._open(found):
                    break
            else:
                raise BundleError(
                    self._reasons.get((name, version), "no version before it is good")
                )
            try:
                choose(folder, model.version)
            except ConfigError:
                if model not in self._served(name):
                    await self._inference.retire(model)
                raise
            versions = {each.version: each for each in self._served(name)}
            versions[model.version] = model
            await self._replace(name, in_order(versions.values(), default=model.version))

    async def _unload(self, name: str) -> None:
        async with self._changing:
            self._inference.repository.versions(name)
            await self._replace(name, ())

    def _candidates(self, name: str, version: str) -> list[Found]:
        """The versions on disk that a choice may mean, the first that is good will be it."""
        there = [each for each in self._shelf.found(everything=True) if each.name == name]
        if version == PREVIOUS:
            current = int(self._inference.repository.model(name).version)
            wanted = [each for each in reversed(there) if int(each.version) < current]
        else:
            wanted = [each for each in there if each.version == version]
        if not wanted:
            known = ", ".join(each.version for each in there) or "none"
            raise UnknownModel(f"{name!r} has no version {version!r} (there: {known})")
        return wanted

    async def _open(self, found: Found) -> Model | None:
        """The version, ready to be switched to; what is served of it if it is no good."""
        served = {model.version: model for model in self._served(found.name)}.get(found.version)
        if served and self._marks.get(found.key) == found.mark:
            self._reasons.pop(found.key, None)  # what was wrong meanwhile is so no more
            return served
        self._states[found.key] = "LOADING"
        try:
            await self._try_out(self._shelf, found)
            model = await self._ready(found)
        except (BundleError, ModelFault) as error:
            log.warning(
                "%s is %s: %s", found, "served as before" if served else "not served", error
            )
            self._reasons[found.key] = str(error)
            return served
        finally:
            del self._states[found.key]
        self._reasons.pop(found.key, None)
        self._marks[found.key] = found.mark
        return model

    async def _ready(self, found: Found) -> Model:
        """A version that takes work, though nobody is sent to it yet.

        Where memory is limited the loader makes room for it, and tails come with their first call.
        """
        limited = self._inference.loader.residence.limits.any
        model = await self._aside(partial(open_one, self._shelf, found, load=not limited))
        if not limited:
            for stage in self._as_warm(model):
                await self._aside(stage.load)
        await self._inference.begin(model)
        return model

    def _as_warm(self, model: Model) -> list[Stage]:
        """The tails that traffic may be at already, because another version's are loaded."""
        loaded = {
            stage.key.cut
            for other in self._served(model.name)
            for stage in other.stages
            if self._inference.worker.cost(stage) is not None
        }
        return [stage for stage in model.stages[1:] if stage.key.cut in loaded]

    async def _replace(self, name: str, models: tuple[Model, ...]) -> None:
        before = self._served(name)
        self._inference.repository.put(name, models)
        kept = {(model.name, model.version) for model in models}
        log.info("%s: %s", name, ", ".join(each.version for each in models) or "unloaded")
        for model in before:
            if model in models:
                continue
            key = (model.name, model.version)
            self._states[key] = "READY" if key in kept else "UNLOADING"
            try:
                await self._inference.retire(model)
            finally:
                del self._states[key]
            if key not in kept:
                self._marks.pop(key, None)

    def _served(self, name: str) -> tuple[Model, ...]:
        return tuple(model for model in self._inference.repository if model.name == name)

    async def _aside(self, work: Callable[[], _T]) -> _T:
        """Does what takes long behind the traffic."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _on_disk(self) -> tuple[set[_Key], dict[str, str]]:
        """The versions there are, and which of them was chosen to be the default."""
        there = {found.key: found for found in self._shelf.found(everything=True)}
        folders = {found.name: found.path.parent for found in there.values()}
        return set(there), {name: chosen(folder) for name, folder in folders.items()}

    def _state(self, key: _Key, served: set[_Key], choices: Mapping[str, str]) -> dict[str, str]:
        reason = self._reasons.get(key, "")
        if key in served:
            name, version = key
            default = "the default, as chosen" if choices.get(name) == version else ""
            return {"state": "READY", "reason": reason or default}
        state = self._states.get(key, "UNAVAILABLE")
        return {"state": state, "reason": reason or ("" if key in self._states else "not loaded")}

    def _allow(self, verb: str) -> None:
        if not self._allowed:
            raise NotAllowed(f"this server does not {verb} models; start it with --model-control")


@contextmanager
def _reading() -> Iterator[None]:
    """That a directory cannot be read is no defect of ours: ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"the models cannot be read: {error}") from error


def _stand_back() -> None:
    """Makes the calling thread wait for all others, and for good: nobody may undo it.

    Threads that it starts are as patient, so sessions of several threads must not be made on it.
    """
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
