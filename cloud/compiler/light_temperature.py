"""The temperature of a bundle's light model: from its card, or found on calibration pictures."""

from functools import partial
from typing import cast

import msgspec
import numpy as np

from ...devices.models import DeviceModels
from ...shared.bundle import Bundle
from ...shared.manifest import Manifest, OutputKind, encode_manifest
from ...shared.plan import Plan
from .card import card_temperature
from .cloud_side import CloudSide
from .pictures import read_picture
from .progress import Ticks
from .side_values import side_values
from .sources import ModelSource
from .steps import Steps, sha256, without_names
from .temperature import Floats, fit_temperature


def with_temperature(bundle: Bundle, source: ModelSource, steps: Steps) -> Manifest:
    """The bundle's manifest with the temperature of its light model.

    A distilled student's stands on its card; any other model's is fitted to the answers of the
    large model on the calibration pictures.
    """
    manifest = bundle.manifest
    temperature = None
    if source.file is not None:
        temperature = card_temperature(source.file, sha256=source.sha256)
    if temperature is None:
        encoded = steps.cache.get(
            "temperature",
            inputs=[
                sha256(encode_manifest(_what_counts(manifest))),
                steps.calibration.sha256,
                steps.tools,
            ],
            make=lambda: msgspec.json.encode(_fitted(bundle, steps)),
        )
        temperature = msgspec.json.decode(encoded, type=float)
    light = msgspec.structs.replace(manifest.light, temperature=temperature)
    return msgspec.structs.replace(manifest, light=light)


def _what_counts(manifest: Manifest) -> Manifest:
    """The two whole models: what a new cut or table changes is left out."""
    return msgspec.structs.replace(
        without_names(manifest),
        large=msgspec.structs.replace(manifest.large, cuts=(), head_files={}),
        table=(),
        provenance={},
    )


def _fitted(bundle: Bundle, steps: Steps) -> float:
    models, cloud = DeviceModels(bundle, threads=2), CloudSide.open(bundle, threads=2)
    files = steps.calibration.files
    sides = side_values(steps.calibration, bundle.manifest.large.inputs)
    given, wanted = [], []
    told = partial(steps.progress, "calibrating the light model's confidence")
    for file, beside in Ticks(told, len(files)).over(zip(files, sides, strict=True)):
        picture = read_picture(file)
        given.append(models.light(models.resize_light(picture)))
        wanted.append(cloud.answer(Plan.cloud("raw"), models.resize_large(picture), beside))
    outputs = cast(Floats, np.stack(given))
    return fit_temperature(outputs, np.array(wanted, np.int64), OutputKind.PROBABILITIES)
