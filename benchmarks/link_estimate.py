"""How well the estimate of a link says whether an exchange will be in time.

    python benchmarks/link_estimate.py [--quick] [--json] [--traces DIR] [--links NAMES] [--seeds N]

Each of seven loads runs over each link, packet by packet in virtual time, from a link of which
nothing is known. Once an exchange has ended, the estimate says before each how probable it is that
it takes at most so long, for seven budgets. The figure is the logarithmic loss of what it said
(Good, 1952), in nats, beside that of a peer that knows no sizes: the share of the last 50 exchanges
that took at most so long. What the router adds for sizes never tried and for other requests is left
out.
"""

import argparse
import heapq
import itertools
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from _common import Report, Target, load, machine, parser, progress, run
from wan.link_model import Link
from wan.links import all_names, find_link

from hybridge.cli.console import table
from hybridge.edge.duration import Duration
from hybridge.edge.link import Exchange, LinkEstimate
from hybridge.shared.errors import ConfigError

_BUDGETS_MS = (100.0, 150.0, 200.0, 300.0, 450.0, 700.0, 1500.0)
_SECONDS, _STRETCH_S = 60.0, 97.0
_GIVEN_UP_S = 2.0
_AGAIN_S = 0.1
_ANSWER_BYTES, _HEADER_BYTES = 400, 250
_CLOUD_MS = (8.0, 0.1)
"""How long the cloud takes: the median, and the spread of its logarithm."""
_LEAST = 1e-3
_LAST = 50
_QUICK_LINKS = ["lte", "wifi"]

Load = Callable[[random.Random], Iterator[tuple[float, int]]]
"""Without end: a pause in s, and how many bytes are sent after it."""


def _steady(hz: float, *kilobytes: float) -> Load:
    def load(chance: random.Random) -> Iterator[tuple[float, int]]:
        while True:
            yield 1.0 / hz, round(1e3 * chance.choice(kilobytes))

    return load


def _bursts(every_s: float, count: int, kilobytes: float) -> Load:
    def load(_: random.Random) -> Iterator[tuple[float, int]]:
        while True:
            yield every_s, round(1e3 * kilobytes)
            yield from [(0.0, round(1e3 * kilobytes))] * (count - 1)

    return load


LOADS: dict[str, Load] = {
    "1 kB, 10/s": _steady(10.0, 1.0),
    "10 kB, 10/s": _steady(10.0, 10.0),
    "25 kB, 5/s": _steady(5.0, 25.0),
    "60 kB, 2/s": _steady(2.0, 60.0),
    "mixed, 5/s": _steady(5.0, 0.4, 3.0, 10.0, 24.0, 60.0),
    "mixed, 1 in 5 s": _steady(0.2, 0.4, 3.0, 10.0, 24.0, 60.0),
    "8 of 12 kB every 2 s": _bursts(2.0, 8, 12.0),
}


@dataclass
class Losses:
    """Of every exchange, for every budget, in nats."""

    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)


@dataclass
class _Asked:
    """One exchange, and what was said of it when it began."""

    exchange: Exchange
    began_s: float
    ours: list[float]
    peer: list[float]
    anything_known: bool
    cloud_ms: float = 0.0
    answered: bool = False


def losses_of(link: Link, load: Load, *, seed: int) -> Losses:
    """The losses of what a load begins in a minute, once anything is known."""
    chance = random.Random(seed)
    estimate, losses = LinkEstimate(), Losses()
    last: deque[float] = deque(maxlen=_LAST)
    order = itertools.count()
    events: list[tuple[float, int, str, _Asked | int]] = []

    def at(time_s: float, what: str, of: _Asked | int) -> None:
        heapq.heappush(events, (time_s, next(order), what, of))

    begun_s = 0.0
    for pause_s, size_bytes in load(chance):
        begun_s += pause_s
        if begun_s > _SECONDS:
            break
        at(begun_s, "begin", size_bytes)
    while events:
        now_s, _, what, of = heapq.heappop(events)
        if isinstance(of, int):
            expected = _alone(estimate, of, now_s)
            said = [expected.within(ms) for ms in _BUDGETS_MS]
            shares = [(sum(t <= ms for t in last) + 1) / (len(last) + 2) for ms in _BUDGETS_MS]
            exchange = estimate.begin(of, now_s=now_s)
            asked = _Asked(exchange, now_s, said, shares, anything_known=bool(last))
            at(link.up.send(of + _HEADER_BYTES, now_s, again_s=_AGAIN_S), "come", asked)
            at(now_s + _GIVEN_UP_S, "give up", asked)
        elif what == "come":
            of.cloud_ms = _CLOUD_MS[0] * math.exp(chance.gauss(0.0, _CLOUD_MS[1]))
            at(now_s + of.cloud_ms / 1e3, "ready", of)
        elif what == "ready":
            at(link.down.send(_ANSWER_BYTES, now_s, again_s=_AGAIN_S), "answered", of)
        elif not of.answered:
            of.answered = True
            took_ms = (now_s - of.began_s) * 1e3
            if what == "give up":
                estimate.abandon(of.exchange, now_s=now_s, cloud_ms=_CLOUD_MS[0])
            else:
                estimate.finish(
                    of.exchange, now_s=now_s, down_bytes=_ANSWER_BYTES, cloud_ms=of.cloud_ms
                )
                took_ms -= of.cloud_ms
            if of.anything_known:
                losses.ours += _each(of.ours, took_ms)
                losses.peer += _each(of.peer, took_ms)
            last.append(took_ms)
    return losses


def _alone(estimate: LinkEstimate, size_bytes: int, now_s: float) -> Duration:
    """By the link alone: all sizes were tried, and nobody else will come."""
    here = estimate.transfer(now_s=now_s)
    return msgspec.structs.replace(here, rate_hz=0.0, reach_kb=math.inf).duration(size_bytes)


def _each(said: Sequence[float], took_ms: float) -> list[float]:
    kept = [min(max(each, _LEAST), 1.0 - _LEAST) for each in said]
    return [
        -math.log(each if took_ms <= ms else 1.0 - each)
        for each, ms in zip(kept, _BUDGETS_MS, strict=True)
    ]


def measure(options: argparse.Namespace) -> Report:
    before = load()
    if options.seeds < 1:
        raise ConfigError("--seeds: at least 1")
    names = _QUICK_LINKS if options.quick else all_names(options.traces)
    if options.links:
        names = options.links.split(",")
    specs = [find_link(name, traces=options.traces) for name in names]
    found: dict[str, dict[str, tuple[float, float]]] = {}
    with progress("links", len(specs)) as advance:
        for spec in specs:
            found[spec.name] = {}
            for name, each in LOADS.items():
                losses = Losses()
                for seed in range(options.seeds):
                    link = Link(spec, seed=seed, offset_s=seed * _STRETCH_S)
                    one = losses_of(link, each, seed=seed)
                    losses.ours += one.ours
                    losses.peer += one.peer
                found[spec.name][name] = (
                    statistics.fmean(losses.ours),
                    statistics.fmean(losses.peer),
                )
            advance()
    every = [pair for loads in found.values() for pair in loads.values()]
    ours, peer = (statistics.fmean(side) for side in zip(*every, strict=True))
    rows = [
        (link, name, f"{mine:.4f}", f"{theirs:.4f}")
        for link, loads in found.items()
        for name, (mine, theirs) in loads.items()
    ]
    better = sum(mine < theirs for mine, theirs in every)
    return Report(
        benchmark="link_estimate",
        targets=[
            Target.at_most(
                "logarithmic loss beside the last 50 exchanges'", ours / peer, unit="x", bound=1.0
            )
        ],
        figures={"loss_nats": ours, "peer_loss_nats": peer, "cells": len(every), "better": better},
        samples={"ours_and_peer_nats": found},
        machine=machine(load_before=before),
        notes=[f"{ours:.4f} nats, the peer {peer:.4f}; better in {better} of {len(every)} cells"],
        tables=[table("logarithmic loss, nats", ("link", "load", "ours", "last 50"), rows)],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    made.add_argument("--traces", type=Path, metavar="DIR", help="recorded links: NAME.up, .down")
    made.add_argument("--links", metavar="NAMES", help="by comma; all, if not given")
    made.add_argument("--seeds", type=int, default=4, metavar="N", help="stretches of a link")
    return run(measure, made.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
