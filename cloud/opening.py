"""All models of a shelf at a start: whatever is broken is left out, and it is known why."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from ..shared.errors import BundleError, ConfigError, ModelFault
from .attempt import attempt, ended_one
from .model import Model
from .repository import Repository
from .shelf import Found, Shelf, Snapshot

log = logging.getLogger(__name__)

Reasons = dict[tuple[str, str], str]
"""Why a version is not served."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What can be served, and why the rest cannot."""

    repository: Repository
    reasons: Reasons
    seen: Snapshot
    """The shelf as it was before."""


def open_shelf(shelf: Shelf, *, load: bool = True) -> Opened:
    """Opens every version of every model, and loads the wholes unless told not to; blocking.

    ConfigError if none can be served.
    """
    reasons: Reasons = {}
    models: dict[str, tuple[Model, ...]] = {}
    seen = shelf.snapshot()
    for name, there in seen.items():
        deadly = [each for each in there.versions if ended_one(each.path, mark=each.mark)]
        trusted = [each for each in there.versions if each not in deadly]
        opened = _open(shelf, trusted, reasons, load=load)
        if opened:
            reasons.update(dict.fromkeys((each.key for each in deadly), _DEADLY))
        else:  # then there is nothing to lose
            opened = _open(shelf, deadly, reasons, load=load)
        if opened:
            models[name] = in_order(opened, default=there.chosen)
    for (name, version), reason in reasons.items():
        log.warning("%s/%s is not served: %s", name, version, reason)
    if not models:
        why = "; ".join(f"{name}/{version}: {why}" for (name, version), why in reasons.items())
        raise ConfigError(f"no model can be served: {why or 'there is none; build one first'}")
    return Opened(Repository(models), reasons, seen)


def open_one(shelf: Shelf, found: Found, *, load: bool = True) -> Model:
    """One version, with a note of it as long as that takes."""
    with attempt(found.path, mark=found.mark):
        return shelf.open(found, load=load)


def in_order(models: Iterable[Model], *, default: str) -> tuple[Model, ...]:
    """The default version first, then the newest; without the default, the newest alone decides."""
    newest_first = sorted(models, key=lambda model: int(model.version), reverse=True)
    return tuple(sorted(newest_first, key=lambda model: model.version != default))


_DEADLY = "a process ended while it loaded this version; load the model to try it again"


def _open(shelf: Shelf, versions: list[Found], reasons: Reasons, *, load: bool) -> list[Model]:
    models: list[Model] = []
    for found in versions:
        try:
            models.append(open_one(shelf, found, load=load))
        except (BundleError, ModelFault) as error:
            reasons[found.key] = str(error)
    return models
