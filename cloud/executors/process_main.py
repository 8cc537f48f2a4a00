"""The far end as a process: a thread for each channel, until the first one is closed."""

import logging
import os
import signal
import socket
import sys
import threading
from typing import BinaryIO

from .arena import HEAD, Arena, Note
from .far_end import FarEnd


def main(descriptors: list[int]) -> None:
    """Serves channels, each given as a socket and a file; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the cloud says when, by closing the sockets
    logging.basicConfig(
        level=logging.WARNING, format=f"worker {os.getpid()}: %(levelname)s %(name)s: %(message)s"
    )
    far_end = FarEnd()
    for sock, file in zip(descriptors[::2], descriptors[1::2], strict=True):
        threading.Thread(target=_serve, args=(far_end, sock, file)).start()


def _serve(far_end: FarEnd, descriptor: int, file: int) -> None:
    try:
        with socket.socket(fileno=descriptor) as sock, sock.makefile("rb") as stream:
            arena = Arena(file)
            while fixed := _read(stream, HEAD.size):
                note = Note.read(fixed)
                order, end = arena.read(note, _read(stream, note.rest_bytes))
                sock.sendall(arena.write(far_end.obey(order), start=end))
    except OSError:  # the cloud is gone
        pass
    except BaseException:
        logging.getLogger(__name__).exception("defect in a worker")
        logging.shutdown()
        os._exit(70)
    os._exit(0)


def _read(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, or none at the end."""
    read = stream.read(size)
    return read if len(read) == size else b""


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
