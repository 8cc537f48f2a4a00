"""Which version answers those who name none, where that is not simply the newest.

Kept as ROOT/NAME/default.json beside the versions, so that it survives a restart and is the same
for all clouds that serve the directory.
"""

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from ..shared.errors import ConfigError

log = logging.getLogger(__name__)

FILE_NAME = "default.json"


class _Choice(msgspec.Struct, frozen=True):
    version: str


def chosen(folder: Path) -> str:
    """The chosen version of the model in a folder, empty if none was chosen."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=_Choice).version
    except FileNotFoundError:
        return ""
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s says nothing: %s; the newest version is the default", folder, error)
        return ""


def choose(folder: Path, version: str) -> None:
    """Remembers a choice, or with an empty version that there is none; ConfigError if it cannot."""
    file = folder / FILE_NAME
    draft = file.with_name(f".{FILE_NAME}.{os.getpid()}")
    try:
        if not version:
            file.unlink(missing_ok=True)
            return
        draft.write_bytes(msgspec.json.encode(_Choice(version)))
        draft.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise ConfigError(
            f"the choice of a version cannot be kept in {file} ({error.strerror}), and would be "
            "lost with a restart; nothing was changed"
        ) from error
