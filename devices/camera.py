"""Frames from cameras and video files, by OpenCV (the extra `sources`)."""

from collections.abc import Generator

import cv2
import numpy as np
import numpy.typing as npt

from ..shared.errors import PictureError

_CAMERA = "camera:"


def frames(source: str) -> Generator[npt.NDArray[np.uint8]]:
    """RGB frames, uint8 [h, w, 3], of `camera:N` or a video file, until it ends or is closed.

    PictureError if it cannot be opened or gives no frame at all.
    """
    number = source.removeprefix(_CAMERA) if source.startswith(_CAMERA) else ""
    if source.startswith(_CAMERA) and not number.isdecimal():
        raise PictureError(f"{source!r} is no camera; write camera:0")
    capture = cv2.VideoCapture(int(number) if number else source)
    try:
        given = 0
        while capture.isOpened():
            whole, frame = capture.read()
            if not whole:
                break
            given += 1
            yield np.ascontiguousarray(frame[..., ::-1], np.uint8)
        if not given:
            raise PictureError(f"{source} gives no frames; is it a camera or a video?")
    finally:
        capture.release()
