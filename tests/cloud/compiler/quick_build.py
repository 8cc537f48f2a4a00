"""Run as a process: a build whose steps are quick, over the real cache and the real writer.

    python quick_build.py HOME NAME VERSION [SIZE_BYTES]

Prints `making STEP` before each step that it makes, and the bundle's path at the end.
"""

import hashlib
import random
import sys
from pathlib import Path

from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.writer import Staging
from hybridge.shared.contract import Contract
from hybridge.shared.manifest import (
    FORMAT,
    Golden,
    Large,
    Light,
    Manifest,
    OutputKind,
    PlanRow,
    Preprocessing,
    Rate,
)
from hybridge.shared.preprocess import PreprocessSpec
from hybridge.shared.signing import SigningKey

STEPS = 6
STEP_BYTES = 2_000_000


def main(home: Path, name: str, version: str, size_bytes: int = 10**9) -> None:
    key = SigningKey.load_or_create(home / "keys" / "signing.key")
    cache = StepCache(home / "build", size_bytes=size_bytes)
    with Staging.opened(home / "bundles", name) as staging:
        made = b""
        for number in range(STEPS):
            made = cache.get(
                f"step{number}", inputs=[made[:64].hex()], make=lambda n=number, m=made: make(n, m)
            )
            staging.store.add(made)
        blob = staging.store.add(made)
        spec = Preprocessing(spec=PreprocessSpec(size_px=16), blob=blob)
        manifest = Manifest(
            format=FORMAT,
            name=name,
            version=version,
            task="classification",
            labels=staging.store.add(b"one\ntwo"),
            classes=2,
            default_budget_ms=100.0,
            light=Light(preprocessing=spec, blob=blob, output=OutputKind.LOGITS),
            large=Large(
                preprocessing=spec,
                sha256="0" * 64,
                pixels=Contract(tensor="pixels", shape=(16, 16, 3), dtype="UINT8", model="0" * 64),
                whole=blob,
                weights=blob,
                weights_index=blob,
                head_files={},
                cuts=(),
                output=OutputKind.LOGITS,
            ),
            table=(
                PlanRow(
                    plan="local", agreement=Rate.of(1, 2), accuracy=None, bytes_p50=0, bytes_p95=0
                ),
            ),
            golden=Golden(blob=blob, tolerance={}),
            provenance={},
        )
        say(str(staging.commit(manifest, key=key)))


def make(number: int, before: bytes) -> bytes:
    say(f"making step{number}")
    seed = hashlib.sha256(b"%d" % number + before).digest()
    return random.Random(seed).randbytes(STEP_BYTES)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:]))
