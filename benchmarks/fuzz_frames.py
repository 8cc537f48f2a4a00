"""Damaged frames, as long as you like: each must be an error of ours or a tensor of its contract.

    python benchmarks/fuzz_frames.py --seconds 600

It begins with the frames of tests/shared/released and changes them: bits, runs of bytes, cuts,
repeats, pieces of other frames; in half of the cases the length and the checksum are put right
afterwards, so that the damage reaches the codec. A case that raises anything else, gives another
shape, takes memory beyond a bound that its contract sets, computes for more than a second or ends
its process is written out and counted.
"""

import argparse
import random
import struct
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))

import numpy as np
from _common import Report, Target, load, machine, parser, run
from _tries import Done, Try, tried
from released import Released, all_released

from hybridge.shared.errors import FrameCorrupt, FrameError
from hybridge.shared.frame import decode_payload, read_header

MORE_BYTES, TIMES = 1 << 20, 64
"""Tracked memory: what any decoder may take, and so many times the tensor's own elements."""


_LOSSY = ("jpeg-", "webp", "avif", "jxl-")


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


def cases(chance: random.Random) -> Iterator[Try]:
    frames = all_released()
    for each in frames:  # decoders are loaded on first use, which is no case's memory
        decode_payload(each.frame, read_header(each.frame), contract=each.contract)
    while True:
        case = make_case(frames, chance)
        yield Try(case.name, case.frame, partial(outcome, case))


def measure(options: argparse.Namespace) -> Report:
    return fuzzed("fuzz_frames", options, cases)


def fuzzed(
    benchmark: str, options: argparse.Namespace, cases: Callable[[random.Random], Iterator[Try]]
) -> Report:
    """As many cases as there is time for; those neither refused nor decoded are written out."""
    load_before = load()
    seconds = min(options.seconds, 20.0) if options.quick else options.seconds
    found: Counter[str] = Counter()
    bad: list[Done] = []
    slowest = Done("none", b"", "", 0.0)
    start = time.monotonic()
    with closing(tried(cases, options.seed)) as every:
        for case in every:
            found[case.said] += 1
            if case.said not in ("refused", "decoded"):
                bad.append(case)
            slowest = max(slowest, case, key=lambda each: each.took_s)
            if time.monotonic() >= start + seconds:
                break
    for at, case in enumerate(bad[:20]):
        file = Path(f"fuzz-{case.name}-{at}.frame")
        file.write_bytes(case.frame)
        sys.stderr.write(f"{file}: {case.said}\n")
    slow_ms = round(slowest.took_s * 1e3, 1)
    return Report(
        benchmark=benchmark,
        targets=[Target.at_most("cases neither refused nor decoded", len(bad), unit="", bound=0)],
        figures={
            "seconds": round(time.monotonic() - start, 1),
            "seed": options.seed,
            "cases": found.total(),
            "outcomes": dict(found),
            "slowest_ms": slow_ms,
            "slowest_of": slowest.name,
        },
        samples={},
        machine=machine(load_before=load_before),
        notes=[
            f"{found.total():,} cases in {seconds:.0f} s: {dict(found)}",
            f"the slowest took {slow_ms} ms of processor time, a damaged {slowest.name}",
        ],
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
