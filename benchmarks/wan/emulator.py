"""The link as a process: a TUN device in each namespace, and the link model between them.

    emulator.py EDGE_NAMESPACE CLOUD_NAMESPACE [--traces DIR]

Orders on stdin, as JSON, a line each:

    {"do": "link", "name": "lte", "seed": 1, "offset_s": 30}   another link, or a stretch again
    {"do": "cut"}, {"do": "restore"}                           everything is lost; nothing more is
    {"do": "statistics"}                                       since the last "link"

A link that is put in starts at its time 0 then; what was on its way arrives at once.
"""

import argparse
import ctypes
import fcntl
import json
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from wan.link_model import Direction, Link
from wan.links import find_link
from wan.namespaces import CLOUD_HOST, DEVICE, EDGE_HOST, Namespace, configure
from wan.workers import Message, reply, take_precedence

from hybridge.shared.errors import ConfigError, HybridgeError

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_PR_SET_TIMERSLACK = 29
_LARGEST_BYTES = 65_536
_BURST = 64
_LATENESS_STEP_MS, _LATENESS_STEPS = 0.05, 400
_ORDERS = 0


def open_tun(namespace: Namespace) -> int:
    """A TUN device inside a namespace, by its file descriptor; it goes with it."""
    with namespace.entered():
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(
            descriptor,
            _TUNSETIFF,
            struct.pack("16sH", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI),
        )
    return descriptor


class _Way:
    """One direction with its real packets."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target = source, target
        self.on_the_way: deque[tuple[float, bytes]] = deque()
        self.refused = 0
        self.lateness = [0] * (_LATENESS_STEPS + 1)

    def take(self, direction: Direction | None) -> None:
        """Reads what the sender has sent; without a direction it is lost."""
        for _ in range(_BURST):
            try:
                packet = os.read(self.source, _LARGEST_BYTES)
            except BlockingIOError:
                return
            if direction is not None:
                arrives_s = direction.put(len(packet), time.monotonic())
                if arrives_s is not None:
                    self.on_the_way.append((arrives_s, packet))

    def deliver(self, now_s: float) -> None:
        """Hands over what has arrived by now."""
        queue = self.on_the_way
        while queue and queue[0][0] <= now_s:
            arrives_s, packet = queue.popleft()
            late_ms = (now_s - arrives_s) * 1e3
            self.lateness[min(int(late_ms / _LATENESS_STEP_MS), _LATENESS_STEPS)] += 1
            self._write(packet)

    def deliver_all(self) -> None:
        while self.on_the_way:
            self._write(self.on_the_way.popleft()[1])

    def _write(self, packet: bytes) -> None:
        try:
            os.write(self.target, packet)
        except BlockingIOError:
            self.refused += 1  # the receiver's own queue is full


class Emulator:
    """Joins two devices by a link that can be exchanged, cut and restored."""

    def __init__(self, edge: int, cloud: int, *, traces: Path | None) -> None:
        self._up, self._down = _Way(edge, cloud), _Way(cloud, edge)
        self._ways = (self._up, self._down)
        self._traces = traces
        self._cut = False
        self._cpu_s = 0.0
        self._put_in(Link(find_link("ethernet"), seed=0, start_s=time.monotonic()))

    def run(self) -> None:
        """Until stdin ends."""
        sources = {way.source: way for way in self._ways}
        waiting = [_ORDERS, *sources]
        orders = b""
        while True:
            due_s = min(
                (way.on_the_way[0][0] for way in self._ways if way.on_the_way), default=None
            )
            wait_s = None if due_s is None else max(0.0, due_s - time.monotonic())
            ready, _, _ = select.select(waiting, (), (), wait_s)
            for descriptor in ready:
                if descriptor == _ORDERS:
                    chunk = os.read(_ORDERS, 65_536)
                    if not chunk:
                        return
                    *lines, orders = (orders + chunk).split(b"\n")
                    for line in lines:
                        reply(self._obey(json.loads(line)))
                else:
                    way = sources[descriptor]
                    way.take(self._direction(way))
            now_s = time.monotonic()
            for way in self._ways:
                way.deliver(now_s)

    def _direction(self, way: _Way) -> Direction | None:
        if self._cut:
            return None
        return self._link.up if way is self._up else self._link.down

    def _obey(self, order: Message) -> Message:
        now_s = time.monotonic()
        try:
            match order["do"]:
                case "link":
                    spec = find_link(order["name"], traces=self._traces)
                    now_s = time.monotonic()  # reading a trace takes its time
                    offset_s = float(order.get("offset_s", 0.0))
                    seed = int(order.get("seed", 0))
                    self._put_in(Link(spec, seed=seed, start_s=now_s, offset_s=offset_s))
                case "cut":
                    self._cut = True
                    for way in self._ways:
                        way.on_the_way.clear()
                case "restore":
                    self._cut = False
                case "statistics":
                    return self._statistics()
                case other:
                    raise ConfigError(f"no order {other!r}")
        except HybridgeError as error:
            return {"error": str(error)}
        return {"done": order["do"], "at_s": now_s}

    def _put_in(self, link: Link) -> None:
        self._link = link
        self._cut = False
        self._cpu_s, self._since_s = time.process_time(), time.monotonic()
        for way in self._ways:
            way.deliver_all()
            way.refused = 0
            way.lateness = [0] * (_LATENESS_STEPS + 1)

    def _statistics(self) -> Message:
        return {
            "link": self._link.spec.name,
            "cpu_s": time.process_time() - self._cpu_s,
            "wall_s": time.monotonic() - self._since_s,
            "ways": {
                name: asdict(direction.counts)
                | {"refused": way.refused}
                | {
                    f"late_p{share * 100:g}_ms": _quantile(way.lateness, share)
                    for share in (0.5, 0.99, 0.999)
                }
                for name, way, direction in (
                    ("up", self._up, self._link.up),
                    ("down", self._down, self._link.down),
                )
            },
        }


def _quantile(histogram: Sequence[int], share: float) -> float:
    """How late deliveries were at most in this share of all, in ms, to the step above."""
    wanted, seen = share * sum(histogram), 0
    for step, count in enumerate(histogram):
        seen += count
        if seen >= wanted:
            return round((step + 1) * _LATENESS_STEP_MS, 3)
    raise AssertionError("a share of at most 1 is always reached")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edge")
    parser.add_argument("cloud")
    parser.add_argument("--traces", type=Path, default=None)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # the default is 50 µs
    take_precedence(rank=2)
    edge, cloud = Namespace(options.edge), Namespace(options.cloud)
    ends = open_tun(edge), open_tun(cloud)
    configure(edge, host=EDGE_HOST, peer=CLOUD_HOST)
    configure(cloud, host=CLOUD_HOST, peer=EDGE_HOST)
    emulator = Emulator(*ends, traces=options.traces)
    reply({"ready": True})
    emulator.run()


if __name__ == "__main__":
    main()
