"""What the large model says of each picture when nothing is compressed, kept in a file."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hybridge.shared.bundle import Bundle
from hybridge.shared.picture import decode_picture


def large_answers(bundle: Bundle, pictures: Sequence[Path], *, kept: Path) -> dict[str, int]:
    """The position of its most probable class, by the picture's name."""
    held = json.loads(kept.read_text()) if kept.exists() else {}
    known: dict[str, int] = held.get("answers", {}) if held.get("bundle") == bundle.sha256 else {}
    missing = [file for file in pictures if file.name not in known]
    if missing:
        known = {**known, **_ask(bundle, missing)}
        kept.write_text(json.dumps({"bundle": bundle.sha256, "answers": known}))
    return {file.name: known[file.name] for file in pictures}


def _ask(bundle: Bundle, pictures: Sequence[Path]) -> dict[str, int]:
    from hybridge.cloud.compiler.cloud_side import CloudSide
    from hybridge.devices.models import DeviceModels

    models, cloud = DeviceModels(bundle), CloudSide.open(bundle)
    answers = {}
    for file in pictures:
        pixels = models.resize_large(decode_picture(file.read_bytes()))
        answers[file.name] = int(np.argmax(cloud.run("", pixels)))
    return answers
