"""The way to the cloud: frames up, answers down, and what each exchange teaches.

One connection carries everything. While the cloud is out of reach, or what was sent is long
overdue, new connections are tried beside it: TCP doubles the pauses of a broken one, so that it may
sleep for seconds after the network has come back. The first that carries a probe takes over.
"""

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from ..protos import fleet_pb2
from ..protos import open_inference_pb2 as pb
from ..shared import oip as messages
from ..shared.deadline import Clock
from ..shared.errors import (
    ConfigError,
    NotAllowed,
    RemoteError,
    RemoteOverlong,
    RemoteRefused,
    RemoteTooLate,
    RemoteUnavailable,
    RemoteUnlike,
)
from .breaker import Breaker
from .cloud_messages import (
    NOTHING,
    Asked,
    Beside,
    CloudAnswer,
    InLayers,
    check_came,
    in_pieces,
    read_answer,
    request_of,
)
from .cloud_times import CloudTimes
from .connection import Connection
from .ledger import Ledger, Purpose
from .link import Exchange, LinkEstimate

log = logging.getLogger(__name__)

_FIRST_PROBE_BYTES = 12_000
"""Less than the ten segments that TCP sends unasked: its time is the link's, not the window's."""
_PROBE_TIMEOUT_S = 2.0
_IDLE_S, _MOST_IDLE_S = 2.0, 60.0
"""A link that carried something within this time needs no probe; idle, the pauses double."""
_TICK_S = 0.25
"""The first pause of a new connection, and how soon a surprise gets a second opinion."""
_RECONNECT_S = (0.15, 0.45)
"""Between two attempts, drawn anew each time, so that a fleet does not come back in step."""
_RECONNECT_TIMEOUT_S = 1.2
_MISFIT_AFTER_S = 1.5
"""So long out of reach, a cloud may be one that cannot be understood."""
_MISFIT_S = (5.0, 10.0)
"""The same where the cloud is there and speaks TLS and the edge does not, or the reverse."""
_MOST_ATTEMPTS = 4
_MOST_REFUSED = 3
"""So many new connections refused in a row mean that there is no cloud any more."""
_LOADING_S = 0.5
"""Between two questions to a cloud that has loaded nothing yet."""
_STALLED_MS = 600.0
_MOST_WAY_BACK = 0.5
"""What share of the time left may be kept for the way back, on a link that is hardly known."""
_OVERHEAD_BYTES = 400
"""HTTP/2 framing and the request's own fields around a frame, roughly."""
_PROBE_OVERHEAD_BYTES = 150


class Uplink:
    """The way to one cloud, watched: it knows the link, the cloud's times and the breaker."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        clock: Clock,
        name: str,
        misfit: Callable[[], str] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """`misfit` blocks, and says why a cloud that is there cannot be understood.

        Pauses between attempts are drawn from `chance`; each edge has its own if it is left out.
        """
        self.name = name
        self.link = LinkEstimate()
        self.cloud = CloudTimes()
        self.breaker = Breaker(opened_at_s=clock())
        self.ledger = Ledger()
        self._connect = connect
        self._clock = clock
        self._last_used_s = float("-inf")
        self._idle_s = _IDLE_S
        self._live = 0
        self._reachable = asyncio.Event()
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts = self._refused = 0
        self._misfit, self._find_misfit = "", misfit
        self._looking = False
        self._look_again_s = float("-inf")
        self._numbers = itertools.count()
        self._random = chance or random.Random()  # noqa: S311  jitter, not secrets

    async def startup(self) -> None:
        """Opens a connection and measures the link in the background; a dead cloud is no error."""
        self._connection = self._connect()
        self._spawn(self._watch())

    async def shutdown(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._connection.close()

    async def reachable(self) -> None:
        """Returns once the cloud is within reach."""
        await self._reachable.wait()

    async def reachable_within(self, seconds: float) -> None:
        """Returns when the cloud is within reach, or so much later without it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.reachable()

    def allow(self, size_bytes: int, *, bytes_per_hour: float) -> None:
        """NotAllowed if so much more would carry what leaves within the hour over that.

        Others may have sent since a plan was chosen, and a frame may be larger than most.
        """
        spent_bytes = self.ledger.spent_bytes(now_s=self._clock())
        if spent_bytes + size_bytes + _OVERHEAD_BYTES > bytes_per_hour:
            raise NotAllowed(f"the {bytes_per_hour:,.0f} bytes an hour are used up")

    async def infer(
        self,
        frame: bytes,
        *,
        model: str,
        version: str,
        parameters: dict[str, messages.Value],
        left_ms: float,
        follow_ms: float = 0.0,
        beside: Beside = NOTHING,
        in_layers: InLayers | None = None,
        purpose: Purpose = Purpose.ANSWERS,
    ) -> CloudAnswer:
        """Sends one frame and waits for its answer; RemoteError if none comes in the time left.

        The cloud is asked for it within `left_ms`; it is waited for `follow_ms` longer. One in
        layers may be answered from the first of them.
        """
        budget: dict[str, messages.Value] = {messages.LATENCY_BUDGET_MS: left_ms}
        if follow_ms:
            budget[messages.FOLLOW] = True
        if beside.priority:
            budget[messages.PRIORITY] = beside.priority
        wait_ms = left_ms + follow_ms
        size_bytes = in_layers.sent_bytes if in_layers else len(frame)
        size_bytes += beside.size_bytes + _OVERHEAD_BYTES
        contract = str(parameters.get(messages.CONTRACT, ""))
        now_s = self._clock()
        if in_layers is not None:
            way_back_ms = self.link.transfer(now_s=now_s).way_back_ms
            budget[messages.WAY_BACK_MS] = min(way_back_ms, _MOST_WAY_BACK * left_ms)
            budget[messages.MIN_LAYERS] = in_layers.least
        sent = {**parameters, **budget}
        expected_ms = self.cloud.forecast(contract, now_s=now_s).mean_ms
        connection, exchange = self._connection, self._begin(size_bytes, expected_ms, purpose)
        self._live += 1
        asked = Asked(str(next(self._numbers)), contract, beside.wanted, in_layers)
        try:
            if in_layers is None:
                request = request_of(model, version, frame, sent, beside)
                request.id = asked.id
                response = await connection.infer(request, timeout_s=wait_ms / 1e3)
            else:
                requests = in_pieces(model, version, frame, sent, beside, in_layers)
                for piece in requests:
                    piece.id = asked.id
                response = await connection.infer_in_pieces(requests, timeout_s=wait_ms / 1e3)
            answer = self._take(response, exchange, asked)
        except RemoteError as fault:
            if isinstance(fault, RemoteUnlike):
                self.cloud.lacks(contract, now_s=self._clock())
            elif isinstance(fault, RemoteOverlong):
                self.cloud.overlong(contract, now_s=self._clock())
            self._learn_from(fault, exchange, connection, left_ms=wait_ms)
            raise
        except asyncio.CancelledError:
            self.link.abandon(exchange, now_s=self._clock(), cloud_ms=expected_ms)
            raise
        finally:
            self._live -= 1
            if self.link.unproven or self.link.unsure:
                self._woken.set()  # what became of it is worth a probe
        self._succeed(connection)
        return answer

    def _take(
        self,
        response: pb.ModelInferResponse,
        exchange: Exchange,
        asked: Asked,
    ) -> CloudAnswer:
        """Reads an answer, and learns from it."""
        now_s = self._clock()
        total_ms = (now_s - exchange.began_s) * 1e3
        answer = read_answer(response, asked, total_ms=total_ms)
        rest_bytes = 0.0
        if asked.in_layers is not None:
            came = check_came(answer.came, asked.in_layers)
            rest_bytes = asked.in_layers.rest_bytes(came)
        self.cloud.observe(
            asked.contract, compute_ms=answer.compute_ms, queue_ms=answer.forecast_ms, now_s=now_s
        )
        self.link.finish(
            exchange,
            now_s=now_s,
            down_bytes=response.ByteSize(),
            cloud_ms=answer.queue_ms + answer.compute_ms,
            rest_bytes=rest_bytes,
        )
        return answer

    async def probe(self, payload_bytes: int, *, connects: bool = False) -> None:
        """One measured exchange with the Fleet service; RemoteError if it fails."""
        connection, size_bytes = self._connection, payload_bytes + _PROBE_OVERHEAD_BYTES
        exchange = self._begin(size_bytes, 0.0, Purpose.PROBES, connects=connects)
        try:
            state = await connection.probe(payload_bytes, timeout_s=_PROBE_TIMEOUT_S)
        except RemoteError as fault:
            self._learn_from(fault, exchange, connection, left_ms=_PROBE_TIMEOUT_S * 1e3)
            raise
        self._learn_state(state, exchange)
        self._succeed(connection)

    def _learn_state(self, state: fleet_pb2.ProbeResponse, exchange: Exchange) -> None:
        now_s = self._clock()
        self.link.finish(exchange, now_s=now_s, down_bytes=state.ByteSize())
        self.cloud.learn(state, now_s=now_s)

    def _begin(
        self, size_bytes: int, cloud_ms: float, purpose: Purpose, *, connects: bool = False
    ) -> Exchange:
        now_s = self._last_used_s = self._clock()
        self._idle_s = _IDLE_S
        self.ledger.book(size_bytes, now_s=now_s, purpose=purpose)
        return self.link.begin(size_bytes, now_s=now_s, cloud_ms=cloud_ms, connects=connects)

    def _succeed(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        if not self.breaker.closed:
            log.info("cloud %s is within reach", self.name)
        self._refused, self._misfit = 0, ""
        self.breaker.succeed()
        self._reachable.set()

    def _learn_from(
        self, fault: RemoteError, exchange: Exchange, connection: Connection, *, left_ms: float
    ) -> None:
        """A refusal is an answer; a time that ran out leaves bytes under way; a break ends all."""
        now_s = self._clock()
        if connection is not self._connection:
            return
        refused_at_once = (now_s - exchange.began_s) * 1e3 < left_ms - 1.0
        if isinstance(fault, RemoteRefused) or (
            isinstance(fault, RemoteTooLate) and refused_at_once
        ):
            self.link.finish(exchange, now_s=now_s)
        elif isinstance(fault, RemoteTooLate):
            self.link.abandon(exchange, now_s=now_s)
        elif isinstance(fault, RemoteUnavailable):
            self._lose(fault)

    def _lose(self, fault: RemoteUnavailable) -> None:
        """The cloud is out of reach, and what was under way gone."""
        if self.breaker.closed:
            log.warning("cloud %s is out of reach: %s", self.name, fault)
        self.link.broken()
        self.breaker.fail(str(fault), now_s=self._clock())
        self._reachable.clear()
        self._woken.set()

    async def _watch(self) -> None:
        """Probes where something has to be found out, as long as the agent runs."""
        try:
            await self.probe(0, connects=True)
            await self.probe(_FIRST_PROBE_BYTES)
        except RemoteError as fault:
            log.warning(
                "cloud %s is not within reach yet: %s; does it run there?", self.name, fault
            )
        self._idle_s = _TICK_S
        while True:
            pause_s = await self._look_after()
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()

    async def _look_after(self) -> float:
        """Does what is due; for how long nothing else will be."""
        now_s = self._clock()
        if not self.breaker.closed or self.link.stall_ms(now_s=now_s) > _STALLED_MS:
            if (opened_at_s := self.breaker.opened_at_s) is not None:
                if now_s - opened_at_s >= _MISFIT_AFTER_S:
                    self._look_for_misfit()
                if self._misfit:
                    return self._random.uniform(*_MISFIT_S)
            if self._attempts < _MOST_ATTEMPTS:
                self._spawn(self._reconnect())
            await asyncio.sleep(self._random.uniform(*_RECONNECT_S))  # the pause itself
            return 0.0
        idle_s = now_s - self._last_used_s
        if idle_s >= self._patience_s() or (self.link.unproven and not self._live):
            alone = self.cloud.known and idle_s >= self._idle_s  # and no second opinion
            pause_s = min(2 * self._idle_s, _MOST_IDLE_S) if alone else self._idle_s
            with contextlib.suppress(RemoteError):
                await self.probe(0)
            self._idle_s = pause_s
        return _TICK_S if self.link.unproven else min(_IDLE_S, self._patience_s())

    def _patience_s(self) -> float:
        """For how long nothing may cross the link until it is probed."""
        if not self.cloud.known:
            return _LOADING_S
        return _TICK_S if self.link.unsure else self._idle_s

    def _look_for_misfit(self) -> None:
        """Asks beside all else why a cloud may not be understood, and some seconds later again.

        It may have been away when asked before. What is found is told once.
        """
        now_s = self._clock()
        if self._find_misfit is not None and now_s >= self._look_again_s and not self._looking:
            self._look_again_s, self._looking = now_s + _MISFIT_S[0], True
            self._spawn(self._look_once(self._find_misfit))

    async def _look_once(self, find: Callable[[], str]) -> None:
        try:
            found = await asyncio.to_thread(find)
        finally:
            self._looking = False
        if found != self._misfit:
            self._misfit = found
            self._woken.set()
            if found:
                log.error("cloud %s cannot be used: %s", self.name, found)
                self.breaker.reason = found

    async def _reconnect(self) -> None:
        """Tries a new connection; if it carries a probe before the old one does, it takes over."""
        try:
            connection = self._connect()
        except ConfigError as error:  # TLS files that are just being replaced
            log.debug("no new connection to %s: %s", self.name, error)
            return
        self._attempts += 1
        began_s = self._clock()
        try:
            state = await connection.probe(0, timeout_s=_RECONNECT_TIMEOUT_S)
            # Attempts that come to nothing carry nothing: an outage uses up no allowance.
            self.ledger.book(_PROBE_OVERHEAD_BYTES, now_s=began_s, purpose=Purpose.PROBES)
            if not self.breaker.closed or self.link.stall_ms(now_s=self._clock()):
                old, self._connection = self._connection, connection
                self._spawn(old.close(grace_s=_PROBE_TIMEOUT_S))
                self.link.broken()
                exchange = self.link.begin(_PROBE_OVERHEAD_BYTES, now_s=began_s, connects=True)
                self._learn_state(state, exchange)
                self._idle_s = _TICK_S
                self._succeed(connection)
        except RemoteUnavailable as error:
            self._refused += 1
            if self._refused >= _MOST_REFUSED and self.breaker.closed:
                self._lose(error)  # the old connection is not just slow
        except RemoteError as error:
            log.debug("no new connection to %s: %s", self.name, error)
        finally:
            self._attempts -= 1
            if connection is not self._connection:
                await connection.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
