"""`hybridge infer`: pictures or folders to an edge agent, answers as a table or JSON."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from ..client import Answer, Client
from ..shared.errors import PictureError, RemoteError, RemoteUnavailable
from .console import complain, console, print_json, table
from .options import add_tls, security

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_SOME_FAILED = 65


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("infer", help="send pictures to an edge agent")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="FILE|FOLDER")
    parser.add_argument("--edge", default="127.0.0.1:8600", metavar="HOST:PORT")
    parser.add_argument("--budget", type=float, metavar="MS", help="the bundle's if not given")
    parser.add_argument("--model", default="", help="needed only where several are served")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_tls(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    answers: dict[str, Answer] = {}
    faults: dict[str, str] = {}
    gone: RemoteUnavailable | None = None
    with Client(options.edge, security=security(options)) as client:
        for file in find_pictures(options.pictures):
            try:
                answers[str(file)] = client.infer(
                    file.read_bytes(), budget_ms=options.budget, model=options.model
                )
            except RemoteUnavailable as error:  # for the others too; what was answered is shown
                gone = error
                break
            except (RemoteError, OSError) as error:  # this picture's fault: the others go on
                faults[str(file)] = str(error)
                complain(f"{file}: {error}")
    if gone is not None and not answers:
        raise gone
    if options.json:
        rows = [{"file": file, **as_json(answer)} for file, answer in answers.items()]
        print_json({"answers": rows, "errors": faults})
    elif answers:
        console.print(answer_table("answers", answers))
    if gone is not None:
        raise gone
    return _SOME_FAILED if faults else 0


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """The files, and what pictures the folders hold; PictureError if there is nothing to send."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(f for f in path.rglob("*") if f.suffix.lower() in _SUFFIXES)
        else:
            found.append(path)
    if not found:
        raise PictureError("no pictures there")
    return found


def as_json(answer: Answer) -> dict[str, object]:
    """An answer without its full probability vector."""
    return {
        "request_id": answer.request_id,
        "labels": list(answer.labels),
        "confidence": answer.confidence,
        "plan": answer.plan,
        "provisional": answer.provisional,
        "fallback": answer.fallback,
        "sent_bytes": answer.sent_bytes,
        "total_ms": answer.total_ms,
        "budget_ms": answer.budget_ms,
        "within_budget": answer.within_budget,
        "steps_ms": answer.steps_ms,
        "round_trip_ms": answer.round_trip_ms,
    }


def answer_table(title: str, answers: dict[str, Answer]) -> Table:
    """A row per picture."""
    return table(
        title,
        ("picture", "label", "sure", "plan", "ms", "budget", "sent", "note"),
        [
            (
                Path(name).name,
                answer.label,
                f"{answer.confidence:.0%}",
                answer.plan,
                f"{answer.total_ms:.0f}",
                f"{answer.budget_ms:.0f}",
                f"{answer.sent_bytes:,}",
                note(answer),
            )
            for name, answer in answers.items()
        ],
    )


def note(answer: Answer) -> str:
    """What a reader should know of an answer, in a word or two."""
    words = []
    if answer.provisional:
        words.append("provisional")
    if answer.fallback:
        words.append(answer.fallback)
    if not answer.within_budget:
        words.append("LATE")
    return ", ".join(words)
