"""Damaged frames, as long as you like: each must be an error of ours or a tensor of its contract.

    python benchmarks/fuzz_frames.py --seconds 600

It begins with the frames of tests/shared/released and changes them: bits, runs of bytes, cuts,
repeats, pieces of other frames; in half of the cases the length and the checksum are put right
afterwards, so that the damage reaches the codec. A case that raises anything else, gives another
shape, or takes memory beyond a bound that its contract sets is written out and counted.
"""

import argparse
import random
import struct
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))

import numpy as np
from _common import Report, Target, load, machine, parser, run
from released import Released, all_released

from hybridge.shared.errors import FrameCorrupt, FrameError
from hybridge.shared.frame import decode_payload, read_header

MORE_BYTES, TIMES = 1 << 20, 64
"""Tracked memory: what any decoder may take, and so many times the tensor's own elements."""


class Named(Protocol):
    """A damaged frame and the name of what it was made of."""

    @property
    def name(self) -> str: ...

    @property
    def frame(self) -> bytes: ...


_LOSSY = ("jpeg-", "webp", "avif", "jxl-")
C = TypeVar("C", bound=Named)


@dataclass(frozen=True)
class Case:
    """A damaged frame and what it was made of."""

    released: Released
    frame: bytes
    mended: bool

    @property
    def name(self) -> str:
        name: str = self.released.name
        return name


def damaged(frame: bytes, others: Sequence[bytes], chance: random.Random, *, start: int) -> bytes:
    """One to five changes from `start` on."""
    made = bytearray(frame)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(start, len(made)) if len(made) > start else start
        length = chance.choice((1, 1, 2, 4, 16, 64))
        kind = chance.randrange(7)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            made[at : at + length] = chance.randbytes(min(length, len(made) - at))
        elif kind == 2:
            del made[at : at + length]
        elif kind == 3:
            made[at:at] = made[at : at + length]
        elif kind == 4:
            made[at : at + length] = bytes([chance.choice((0, 255))]) * min(length, len(made) - at)
        elif kind == 5:
            other = chance.choice(others)
            begin = chance.randrange(len(other))
            made[at : at + length] = other[begin : begin + length]
        else:
            del made[at:]
    return bytes(made)


def mended(frame: bytes, payload_at: int) -> bytes:
    """With the length and the checksum that belong to what follows the header."""
    head, payload = frame[: payload_at - 8], frame[payload_at:]
    head += struct.pack("<I", len(payload))
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def make_case(frames: Sequence[Released], chance: random.Random) -> Case:
    released = chance.choice(frames)
    others = [each.frame for each in frames]
    payload_at = 48 + 4 * len(released.contract.shape)
    if chance.random() < 0.5:
        return Case(released, damaged(released.frame, others, chance, start=0), mended=False)
    frame = damaged(released.frame, others, chance, start=payload_at)
    return Case(released, mended(frame, payload_at), mended=True)


def outcome(case: Case) -> str:
    """`refused`, `decoded`, or what went wrong."""
    contract = case.released.contract
    tracemalloc.start()
    try:
        made = decode_payload(case.frame, read_header(case.frame), contract=contract)
    except (FrameError, FrameCorrupt):
        said = "refused"
    except Exception as error:  # whatever it is, it is what we look for
        return f"raised {type(error).__name__}"
    else:
        right = made.shape == contract.shape and made.dtype == case.released.tensor.dtype
        said = "decoded" if right else "another shape"
        if not case.mended and not np.array_equal(made, case.released.tensor):
            said = "decoded" if case.name.startswith(_LOSSY) else "wrong"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    bound = MORE_BYTES + TIMES * contract.elements + 4 * len(case.frame)
    return said if peak <= bound else f"{peak} bytes of memory"


def measure(options: argparse.Namespace) -> Report:
    frames = all_released()
    for each in frames:  # decoders are loaded on first use, which is no case's memory
        decode_payload(each.frame, read_header(each.frame), contract=each.contract)
    return fuzzed("fuzz_frames", options, lambda chance: make_case(frames, chance), outcome)


def fuzzed(
    benchmark: str,
    options: argparse.Namespace,
    make: Callable[[random.Random], C],
    outcome: Callable[[C], str],
) -> Report:
    """As many cases as there is time for; those neither refused nor decoded are written out."""
    load_before = load()
    seconds = min(options.seconds, 20.0) if options.quick else options.seconds
    chance = random.Random(options.seed)
    found: Counter[str] = Counter()
    bad: list[C] = []
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        case = make(chance)
        said = outcome(case)
        found[said] += 1
        if said not in ("refused", "decoded"):
            bad.append(case)
    for at, case in enumerate(bad[:20]):
        file = Path(f"fuzz-{case.name}-{at}.frame")
        file.write_bytes(case.frame)
        sys.stderr.write(f"{file}\n")
    return Report(
        benchmark=benchmark,
        targets=[Target.at_most("cases neither refused nor decoded", len(bad), unit="", bound=0)],
        figures={
            "seconds": round(time.monotonic() - start, 1),
            "seed": options.seed,
            "cases": found.total(),
            "outcomes": dict(found),
        },
        samples={},
        machine=machine(load_before=load_before),
        notes=[f"{found.total():,} cases in {seconds:.0f} s: {dict(found)}"],
    )


def fuzz_parser(description: str) -> argparse.ArgumentParser:
    made = parser(description)
    made.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    made.add_argument("--seed", type=int, default=1, help="of the damage (1)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    return run(measure, fuzz_parser(__doc__ or "").parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
