"""The models that are served, and how one of them is opened."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..shared.bundle import open_bundle
from ..shared.errors import BundleError, UnknownContract, UnknownModel
from ..shared.manifest import Precision, Runtime
from ..shared.signing import TrustStore
from .golden import check_golden
from .model import Model, OpenRemote, ServedModel
from .stage import Stage

log = logging.getLogger(__name__)


class Repository:
    """The served models: every good version of every name."""

    def __init__(self, models: Mapping[str, tuple[Model, ...]]) -> None:
        self._models = dict(models)

    def __iter__(self) -> Iterator[Model]:
        for versions in self._models.values():
            yield from versions

    def versions(self, name: str) -> tuple[Model, ...]:
        """The versions of a model, the default first; UnknownModel if there is none."""
        try:
            return self._models[name]
        except KeyError:
            raise UnknownModel(f"{name!r} (there: {', '.join(self._models)})") from None

    def model(self, name: str, version: str = "") -> Model:
        """A version of a model, the default unless one is named; UnknownModel if there is none."""
        versions = self.versions(name)
        if not version:
            return versions[0]
        for model in versions:
            if version == model.version:
                return model
        known = ", ".join(model.version for model in versions)
        raise UnknownModel(f"{name!r} has no version {version!r} (there: {known})")

    def put(self, name: str, versions: tuple[Model, ...]) -> None:
        """Serves these versions of a model, the default first, instead of the former; or none."""
        self._models.pop(name, None)
        if versions:
            self._models[name] = versions

    def stage(self, digest: bytes, *, name: str, version: str = "") -> tuple[Model, Stage]:
        """The stage that goes on from a contract, and its model.

        Without a version all are searched: a fleet that moves to a new bundle sends contracts of
        both. Raises UnknownContract with what is served.
        """
        models = (self.model(name, version),) if version else self.versions(name)
        for model in models:
            if stage := model.by_contract.get(digest):
                return model, stage
        known = ", ".join(
            f"{stage.contract.id[:12]} ({stage.key})" for model in models for stage in model.stages
        )
        raise UnknownContract(f"{digest.hex()[:12]} is not served (served: {known})")


def load_version(
    path: Path,
    *,
    trust: TrustStore,
    max_batch: int,
    precision: Precision,
    runtime: Runtime | None = None,
    revision: int = 0,
    remote: OpenRemote | None = None,
    budget_bytes: int | None = None,
    load: bool = True,
) -> ServedModel:
    """Opens one bundle, and loads its whole model unless told not to; blocking.

    BundleError or ModelFault if it is bad.
    """
    bundle = open_bundle(path, trust=trust)
    manifest = bundle.manifest
    if (manifest.name, manifest.version) != (path.parent.name, path.name):
        raise BundleError(f"it calls itself {manifest.name}/{manifest.version}")
    model = ServedModel.of(
        bundle,
        max_batch=max_batch,
        precision=precision,
        runtime=runtime,
        revision=revision,
        remote=remote,
        budget_bytes=budget_bytes,
    )
    if not load:
        return model
    model.whole.load()
    check_golden(model)
    cost = model.whole.cost
    log.info(
        "%s in %s by %s: %.1f ms for one picture%s",
        model.whole.key,
        model.precision,
        model.runtime,
        cost.predict_ms(1),
        f", batches of {cost.batch_items}" if cost.batch_items > 1 else ", no batching gain",
    )
    return model
