"""`hybridge watch`: how an agent is doing, live."""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message
from rich.console import RenderableType
from rich.live import Live

from ..client import Client
from ..protos import fleet_pb2
from ..report.agent_view import agent_view
from ..shared.errors import ConfigError, RemoteError, RemoteRefused
from .console import complain, console, print_json_line
from .options import add_tls, security

_AGAIN_S = 1.0
_LEAST_S, _MOST_S = 0.1, 3_600.0


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("watch", help="how an edge agent is doing, live")
    parser.add_argument("--edge", default="127.0.0.1:8600", metavar="HOST:PORT")
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS", help="between two states (1)"
    )
    parser.add_argument("--once", action="store_true", help="show the state once and leave")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_tls(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    if not _LEAST_S <= options.every <= _MOST_S:
        raise ConfigError(f"--every {options.every:g}: use {_LEAST_S:g} to {_MOST_S:g} seconds")
    with Client(options.edge, security=security(options)) as client:
        if options.once:
            _print(client.agent_state(), options)
        elif options.json or not console.is_terminal:
            for state in states(client, every_s=options.every, on_away=complain):
                _print(state, options)
        else:
            _show_live(client, options)
    return 0


def states(
    client: Client, *, every_s: float, on_away: Callable[[str], None]
) -> Iterator[fleet_pb2.AgentState]:
    """One state after another without end. An edge that goes away is told once, and awaited.

    RemoteRefused if what answers there is no edge.
    """
    away = False
    while True:
        try:
            for state in client.watch_agent(interval_ms=round(every_s * 1e3)):
                away = False
                yield state
            reason = "it has ended"
        except RemoteRefused:
            raise
        except RemoteError as error:
            reason = str(error)
        if not away:
            on_away(f"the edge at {client.address} is away: {reason}")
        away = True
        time.sleep(_AGAIN_S)  # the pause itself


def as_json(message: Message) -> dict[str, Any]:
    """A message as JSON takes it, every field by its name; what is not known is null."""
    row: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        nested = field.message_type is not None
        if field.is_repeated:
            row[field.name] = [as_json(each) if nested else each for each in value]
        elif field.has_presence and not message.HasField(field.name):
            row[field.name] = None
        else:
            row[field.name] = as_json(value) if nested else value
    return row


def _print(state: fleet_pb2.AgentState, options: argparse.Namespace) -> None:
    if options.json:
        print_json_line(as_json(state))
    else:
        console.print(agent_view(state, edge=options.edge))


def _show_live(client: Client, options: argparse.Namespace) -> None:
    view = _View(options.edge)
    with Live(get_renderable=view.render, console=console, screen=True) as live:
        for state in states(client, every_s=options.every, on_away=view.away):
            view.show(state)
            live.refresh()


class _View:
    """The last state, and whether it still holds. Drawn by a thread of its own."""

    def __init__(self, edge: str) -> None:
        self._edge = edge
        self._state: fleet_pb2.AgentState | None = None
        self._away = ""
        self._since_s = time.monotonic()

    def show(self, state: fleet_pb2.AgentState) -> None:
        self._state, self._away, self._since_s = state, "", time.monotonic()

    def away(self, reason: str) -> None:
        self._away = reason

    def render(self) -> RenderableType:
        return agent_view(
            self._state, edge=self._edge, away=self._away, age_s=time.monotonic() - self._since_s
        )
