"""Where a model can be cut, seen as a graph alone: pure, without ONNX, TFLite or values.

A cut is a set of tensors that together separate the picture from every result. The cuts of one
tensor (separators) come out of one pass over the steps. Between two neighbouring separators lies
everything that branches, and no cut reaches across a separator: whoever has it needs nothing from
before it. So cuts of several tensors are looked for segment by segment, as minimum cuts of the
segment with a + b * work as the price (Hu et al., Dynamic Adaptive DNN Surgery, INFOCOM 2019):

    source ─▶ tensor         its bytes, if it has to cross the link
    step   ─▶ tensor it makes its bytes, too
    tensor ─▶ step that reads it, step ─▶ makers of what it reads: never cut
    step   ─▶ sink           its work, if it runs on the device

Sliding the price of work finds every corner of the lower convex hull of all cuts in (work, bytes)
with two minimum cuts a corner (Eisner and Severance, J. ACM 23(4), 1976); nothing is enumerated.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

_SOURCE, _SINK = "source", "sink"
_Node = str | tuple[str, int] | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: the tensors it reads and makes, and its work in multiply-adds."""

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    work: int = 0


@dataclass(frozen=True, slots=True)
class TensorSet:
    """Tensors that separate the picture from all results, and what they cost to make and send.

    `step` is the index of the last step before the cut.
    """

    tensors: tuple[str, ...]
    step: int
    work: int
    size: int


@dataclass(frozen=True)
class Flow:
    """Steps in an order in which they can run, from one picture to the results.

    `sides` are inputs that only the cloud has: a step that needs one is never before a cut. Steps
    that do not need the picture (constants) are on both sides and cost nothing.
    """

    steps: tuple[Step, ...]
    picture: str
    results: tuple[str, ...]
    sides: frozenset[str] = frozenset()

    @cached_property
    def live_steps(self) -> tuple[int, ...]:
        """The steps that lie on a way from the picture to a result."""
        from_picture = self._reached_from({self.picture})
        needed = set(self.results)
        kept: list[int] = []
        for index in reversed(range(len(self.steps))):
            step = self.steps[index]
            if needed.intersection(step.makes):
                needed.update(step.reads)
                if from_picture.intersection(step.makes):
                    kept.append(index)
        return tuple(reversed(kept))

    @cached_property
    def device_steps(self) -> tuple[int, ...]:
        """Those of them that need no side input."""
        beside = self._reached_from(set(self.sides))
        return tuple(i for i in self.live_steps if beside.isdisjoint(self.steps[i].reads))

    @cached_property
    def makers(self) -> dict[str, int]:
        """The device step that makes each tensor that depends on the picture."""
        return {name: index for index in self.device_steps for name in self.steps[index].makes}

    @cached_property
    def total_work(self) -> int:
        return sum(self.steps[index].work for index in self.live_steps)

    @cached_property
    def _last_reader(self) -> dict[str, float]:
        """The last step that reads a tensor; infinite if the cloud's part always does."""
        on_device = set(self.device_steps)
        last: dict[str, float] = {}
        for index in self.live_steps:
            for name in self.steps[index].reads:
                last[name] = index if index in on_device else float("inf")
        for index in set(self.live_steps) - on_device:
            last.update(dict.fromkeys(self.steps[index].reads, float("inf")))
        return last | dict.fromkeys(self.results, float("inf"))

    def separators(self) -> list[tuple[int, str]]:
        """The tensors that alone are a cut, each with the step after which it is one."""
        found: list[tuple[int, str]] = []
        live = {self.picture}
        for index in self.device_steps:
            live.update(self.steps[index].makes)
            live = {name for name in live if self._last_reader.get(name, -1) > index}
            if len(live) == 1 and index != self.live_steps[-1]:
                (name,) = live
                if name != self.picture and (not found or found[-1][1] != name):
                    found.append((index, name))
        return found

    def work_of(self, tensors: Iterable[str]) -> int:
        """The multiply-adds of all steps that the tensors need."""
        return sum(self.steps[index].work for index in self._steps_for(tensors))

    def behind(self, tensors: Iterable[str]) -> list[int]:
        """The live steps that a device which sends these tensors leaves to the cloud."""
        before = set(self._steps_for(tensors))
        return [index for index in self.live_steps if index not in before]

    def separate(self, tensors: Iterable[str]) -> bool:
        """Whether no result can be had from the picture but through these tensors."""
        cut = set(tensors)
        if not cut <= self.makers.keys() | {self.picture}:
            return False
        reached = {self.picture} - cut
        for index in self.live_steps:
            step = self.steps[index]
            if reached.intersection(step.reads):
                reached.update(set(step.makes) - cut)
        return reached.isdisjoint(self.results)

    def cheapest_sets(self, sizes: Mapping[str, int]) -> list[TensorSet]:
        """The corners of the hull of all cuts in (work, size), segment by segment.

        `sizes` holds the bytes of every tensor that may cross the link; the others never do, the
        last result among them, or the whole model would be a cut.
        """
        borders = [(-1, self.picture), *self.separators()]
        ends = [*(index for index, _ in borders[1:]), len(self.steps)]
        found: list[TensorSet] = []
        for (start, first), end in zip(borders, ends, strict=True):
            inside = [index for index in self.device_steps if start < index <= end]
            segment = _Segment(self, first, inside, sizes)
            for tensors in segment.corners():
                step = max((self.makers.get(name, -1) for name in tensors), default=-1)
                size = sum(sizes[name] for name in tensors)
                found.append(TensorSet(tensors, step, self.work_of(tensors), size))
        return list(dict.fromkeys(found))

    def _reached_from(self, tensors: set[str]) -> set[str]:
        reached = set(tensors)
        for step in self.steps:
            if reached.intersection(step.reads):
                reached.update(step.makes)
        return reached

    def _steps_for(self, tensors: Iterable[str]) -> Iterator[int]:
        needed = set(tensors)
        for index in reversed(self.device_steps):
            if needed.intersection(self.steps[index].makes):
                needed.update(self.steps[index].reads)
                yield index


class _Segment:
    """What lies between a separator and the next one."""

    def __init__(
        self, flow: Flow, first: str, inside: Sequence[int], sizes: Mapping[str, int]
    ) -> None:
        self._flow, self._first, self._inside, self._sizes = flow, first, list(inside), sizes
        made = (name for index in inside for name in flow.steps[index].makes)
        self._own = tuple(dict.fromkeys((first, *made)))
        self._readers: dict[str, list[int | None]] = {name: [] for name in self._own}
        own_steps = set(inside)
        for index in flow.live_steps:
            for name in dict.fromkeys(flow.steps[index].reads):
                if name in self._readers:
                    self._readers[name].append(index if index in own_steps else None)
        for name in flow.results:
            if name in self._readers:
                self._readers[name].append(None)

    def corners(self) -> list[tuple[str, ...]]:
        """The cuts at the corners of the lower hull, from the least work to the fewest bytes."""
        all_work = 1 + sum(self._flow.steps[index].work for index in self._inside)
        all_size = 1 + sum(self._sizes.get(name, 0) for name in self._own)
        least_work = self._cheapest(size_price=1, work_price=all_size)
        fewest_bytes = self._cheapest(size_price=all_work, work_price=1)
        if least_work is None or fewest_bytes is None:
            return []
        found = [least_work, *self._between(least_work, fewest_bytes), fewest_bytes]
        return [tensors for tensors, _, _ in dict.fromkeys(found)]

    def _between(
        self, low: tuple[tuple[str, ...], int, int], high: tuple[tuple[str, ...], int, int]
    ) -> list[tuple[tuple[str, ...], int, int]]:
        """Corners below the straight line between two cuts."""
        (_, low_work, low_size), (_, high_work, high_size) = low, high
        size_price, work_price = high_work - low_work, low_size - high_size
        if size_price <= 0 or work_price <= 0:
            return []
        corner = self._cheapest(size_price=size_price, work_price=work_price)
        if corner is None or corner in (low, high):
            return []
        _, work, size = corner
        if size_price * size + work_price * work >= size_price * low_size + work_price * low_work:
            return []
        return [*self._between(low, corner), corner, *self._between(corner, high)]

    def _cheapest(
        self, *, size_price: int, work_price: int
    ) -> tuple[tuple[str, ...], int, int] | None:
        """Tensors, work and size of the cut of the least price; None if there is none."""
        flow = self._flow
        graph = nx.DiGraph()
        never = 1 + sum(size_price * self._sizes.get(name, 0) for name in self._own)
        never += sum(work_price * flow.steps[index].work for index in self._inside)
        makers = {name: index for index in self._inside for name in flow.steps[index].makes}
        graph.add_nodes_from((_SOURCE, _SINK))
        for name, readers in self._readers.items():
            if not readers:
                continue
            size = self._sizes.get(name)
            price = never if size is None else size_price * size
            maker: _Node = ("step", makers[name]) if name in makers else _SOURCE
            graph.add_edge(maker, ("tensor", name), capacity=price)
            for reader in readers:
                end: _Node = _SINK if reader is None else ("step", reader)
                graph.add_edge(("tensor", name), end, capacity=never)
        for index in self._inside:
            step: _Node = ("step", index)
            graph.add_edge(step, _SINK, capacity=work_price * flow.steps[index].work)
            for name in flow.steps[index].reads:
                if name in makers:
                    graph.add_edge(step, ("step", makers[name]), capacity=never)
        price, (before, _) = nx.minimum_cut(graph, _SOURCE, _SINK)
        if price >= never:
            return None
        tensors = tuple(
            name
            for name, readers in self._readers.items()
            if readers and (makers.get(name) is None or ("step", makers[name]) in before)
            if any(reader is None or ("step", reader) not in before for reader in readers)
        )
        work = sum(flow.steps[index].work for index in self._inside if ("step", index) in before)
        return tensors, work, sum(self._sizes[name] for name in tensors)
