"""Damaged frames in layers, in pieces: each must be an error of ours, or a beginning of the frame.

    python benchmarks/fuzz_layers.py --seconds 600

It begins with the frames of tests/shared/layered. In half of the cases lengths and checksums are
put right after the damage, so that it reaches the codec, which must refuse it or make a tensor of
the contract from any number of layers. What does anything else, takes memory beyond a bound that
the contract sets, computes for more than a second or ends its process is written out and counted.
"""

import argparse
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))

from _common import Report, run
from _tries import Try
from fuzz_frames import MORE_BYTES, TIMES, damaged, fuzz_parser, fuzzed
from layered import Layered, all_layered

from hybridge.shared.arrival import Arrival
from hybridge.shared.errors import FrameError
from hybridge.shared.frame import decode_layers, read_layers_header


@dataclass(frozen=True)
class Case:
    """The pieces that come of a frame, and what it was."""

    layered: Layered
    pieces: tuple[bytes, ...]
    mended: bool

    @property
    def name(self) -> str:
        name: str = self.layered.name
        return name

    @property
    def frame(self) -> bytes:
        return b"".join(self.pieces)


def mended(frames: Sequence[Layered], layered: Layered, chance: random.Random) -> bytes:
    """Damaged layers, behind a header that says what they are now."""
    original = b"".join(layered.layers)
    header = read_layers_header(original)
    others = [b"".join(each.layers) for each in frames]
    at, layers = header.header_bytes, []
    for each in header.layers:
        layer = original[at : at + each.size_bytes]
        if chance.random() < 0.5:
            layer = damaged(layer, others, chance, start=0)
        layers.append(layer)
        at += each.size_bytes
    head = original[: header.header_bytes - 4 - 8 * len(layers)]
    head += b"".join(struct.pack("<II", len(each), zlib.crc32(each)) for each in layers)
    return b"".join((head, struct.pack("<I", zlib.crc32(head)), *layers))


def make_case(frames: Sequence[Layered], chance: random.Random) -> Case:
    layered, mend = chance.choice(frames), chance.random() < 0.5
    if mend:
        frame = mended(frames, layered, chance)
    else:
        others = [b"".join(each.layers) for each in frames]
        frame = damaged(b"".join(layered.layers), others, chance, start=0)
    header = min(200, len(frame))
    cuts = sorted({header, *(chance.randint(header, len(frame)) for _ in range(4)), len(frame)})
    pieces = tuple(frame[start:end] for start, end in zip([0, *cuts], cuts, strict=False))
    return Case(layered, pieces, mend)


def outcome(case: Case) -> str:
    """`refused`, `decoded`, or what went wrong."""
    contract, wanted = case.layered.contract, case.layered
    said = "refused"
    tracemalloc.start()
    try:
        arrival = Arrival(case.pieces[0])
        for piece in case.pieces[1:]:
            arrival.add(piece)
            if arrival.layers:
                made = decode_layers(arrival.layers, arrival.header, contract=contract)
                right = made.shape == contract.shape and made.dtype == wanted.tensors[0].dtype
                said = "decoded" if right else "another shape"
                expected = wanted.tensors[len(arrival.layers) - 1]
                if not case.mended and not (made == expected).all():
                    said = "wrong"
    except FrameError:
        pass
    except Exception as error:  # whatever it is, it is what we look for
        said = f"raised {type(error).__name__}"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    bound = MORE_BYTES + TIMES * contract.elements + 4 * sum(map(len, case.pieces))
    return said if peak <= bound else f"{peak} bytes of memory"


def cases(chance: random.Random) -> Iterator[Try]:
    frames = all_layered()
    for each in frames:  # decoders are loaded on first use, which is no case's memory
        arrival = Arrival(b"".join(each.layers))
        decode_layers(arrival.layers, arrival.header, contract=each.contract)
    while True:
        case = make_case(frames, chance)
        yield Try(case.name, case.frame, partial(outcome, case))


def measure(options: argparse.Namespace) -> Report:
    return fuzzed("fuzz_layers", options, cases)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(measure, fuzz_parser(__doc__ or "").parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
