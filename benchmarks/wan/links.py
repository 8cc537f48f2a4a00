"""Links by name: four profiles, one with outages, and recorded ones from a folder of traces.

Rates upwards and round trips are those of `hybridge plan`, measured through an emulator; radio
links give more downwards. Jitter and queues are chosen: a queue holds 50 ms on a wire, 100 on
Wi-Fi, 300 on LTE and 500 on 3G, as deep as radio links are known to be (Jiang et al., Tackling
Bufferbloat in 3G/4G Networks, IMC 2012). Radio links repeat lost packets themselves: only Wi-Fi
has a loss.

A trace says when packets pass, not how long they travel: its base delay is chosen too.
"""

from pathlib import Path

import numpy as np

from hybridge.shared.errors import ConfigError

from .link_model import DirectionSpec, LinkSpec, OutageKind, Outages, Rate, Trace

_TRACE_DELAY_MS = {"lte": 22.0, "umts": 50.0}
_DEFAULT_TRACE_DELAY_MS = 25.0
_TRACE_QUEUE_BYTES = 150_000
"""A hundred packets: Mahimahi's usual drop-tail queue."""


def _profile(
    name: str,
    *,
    up_mbps: float,
    down_mbps: float,
    delay_ms: float,
    jitter_ms: float,
    queue_ms: float,
    loss: float = 0.0,
    outages: Outages | None = None,
) -> LinkSpec:
    up, down = (
        DirectionSpec(
            bottleneck=Rate(bps=mbps * 1e6),
            delay_ms=delay_ms,
            jitter_ms=jitter_ms,
            loss=loss,
            queue_bytes=max(30_000, round(mbps * 1e6 / 8 * queue_ms / 1e3)),
            outages=outages,
        )
        for mbps in (up_mbps, down_mbps)
    )
    return LinkSpec(name, up=up, down=down)


def profiles() -> dict[str, LinkSpec]:
    """Every link that needs no recording, by name."""
    outages = Outages(((8.0, 11.0),), period_s=20.0, kind=OutageKind.DROP)
    made = [
        _profile(
            "ethernet", up_mbps=957, down_mbps=957, delay_ms=0.3, jitter_ms=0.05, queue_ms=50
        ),
        _profile(
            "wifi", up_mbps=52, down_mbps=60, delay_ms=4.0, jitter_ms=1.0, queue_ms=100, loss=0.001
        ),
        _profile("lte", up_mbps=11.4, down_mbps=30, delay_ms=25.2, jitter_ms=4.0, queue_ms=300),
        _profile("3g", up_mbps=1.5, down_mbps=3.0, delay_ms=75.3, jitter_ms=10.0, queue_ms=500),
        _profile(
            "lte-outages", up_mbps=11.4, down_mbps=30, delay_ms=25.2, jitter_ms=4.0, queue_ms=300,
            outages=outages,
        ),
    ]  # fmt: skip
    return {link.name: link for link in made}


def read_trace(path: Path) -> Trace:
    """A Saturator recording: one delivery opportunity a line, in ms. ConfigError if it is none."""
    try:
        times_ms = np.loadtxt(path, dtype=np.int64, ndmin=1)
        return Trace((times_ms / 1e3).tolist())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no trace in {path}: {error}") from error


def recorded_link(name: str, *, folder: Path) -> LinkSpec:
    """The link recorded in FOLDER/NAME.up and FOLDER/NAME.down."""
    words = name.lower().split("-")
    delay_ms = next(
        (delay for word, delay in _TRACE_DELAY_MS.items() if word in words), _DEFAULT_TRACE_DELAY_MS
    )
    up, down = (
        DirectionSpec(
            bottleneck=read_trace(folder / f"{name}.{way}"),
            delay_ms=delay_ms,
            queue_bytes=_TRACE_QUEUE_BYTES,
        )
        for way in ("up", "down")
    )
    return LinkSpec(f"trace:{name}", up=up, down=down)


def find_link(name: str, *, traces: Path | None = None) -> LinkSpec:
    """A profile by its name, or `trace:NAME` from the folder; ConfigError if there is none."""
    known = profiles()
    if name in known:
        return known[name]
    if name.startswith("trace:"):
        if traces is None:
            raise ConfigError(f"{name} is a recorded link: say where with --traces DIR")
        return recorded_link(name.removeprefix("trace:"), folder=traces)
    raise ConfigError(f"no link {name!r} (there: {', '.join(known)}, trace:NAME)")


def recorded_names(folder: Path) -> list[str]:
    """The links recorded in a folder, as `find_link` takes them."""
    return sorted(
        f"trace:{up.stem}" for up in folder.glob("*.up") if up.with_suffix(".down").is_file()
    )


def all_names(traces: Path | None) -> list[str]:
    """Every profile, and what is recorded in the folder if there is one."""
    return [*profiles(), *(recorded_names(traces) if traces else [])]
