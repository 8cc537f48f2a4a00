from pathlib import Path

import cv2
import numpy as np
import pytest

from hybridge.devices.camera import frames
from hybridge.shared.errors import PictureError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Three frames, each of one colour: red, green, blue."""
    file = tmp_path / "colours.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for channel in (2, 1, 0):  # OpenCV's order is BGR
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., channel] = 255
        writer.write(frame)
    writer.release()
    return file


def test_frames_are_rgb_and_end(video: Path) -> None:
    seen = list(frames(str(video)))
    assert [frame.shape for frame in seen] == [(48, 64, 3)] * 3
    assert [int(frame.mean((0, 1)).argmax()) for frame in seen] == [0, 1, 2]


@pytest.mark.parametrize("source", ["camera:x", "nowhere.avi"])
def test_no_camera_and_no_video(source: str) -> None:
    with pytest.raises(PictureError):
        list(frames(source))


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    file = tmp_path / "text.avi"
    file.write_text("not a video")
    with pytest.raises(PictureError, match="gives no frames"):
        list(frames(str(file)))
