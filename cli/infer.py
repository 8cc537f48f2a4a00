"""`hybridge infer`: pictures, videos, cameras to an edge agent; answers as a table or JSON."""

import argparse
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from ..client import Answer, Client, Wish
from ..shared.errors import PictureError, RemoteError, RemoteUnavailable, RequestError
from ..shared.objective import Objective
from ..shared.side import from_text
from ..shared.tensor import Array
from .console import complain, console, print_json, print_line, table
from .options import add_tls, security

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
_CAMERA = "camera:"
_SOME_FAILED = 65


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("infer", help="send pictures to an edge agent")
    parser.add_argument("sources", nargs="+", metavar="FILE|FOLDER|VIDEO|camera:N")
    parser.add_argument(
        "--frames", type=int, default=30, metavar="N", help="at most, of each video or camera"
    )
    parser.add_argument("--edge", default="127.0.0.1:8600", metavar="HOST:PORT")
    parser.add_argument("--budget", type=float, metavar="MS", help="the bundle's if not given")
    parser.add_argument("--model", default="", help="needed only where several are served")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="what the model takes beside a picture, such as patient=63,1; for all the pictures",
    )
    parser.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="NAME",
        help="wanted beside the answer: asks the cloud if there is time; shown with --json",
    )
    wishes = parser.add_argument_group("what is wanted (default: as the edge has it)")
    wishes.add_argument("--objective", choices=[str(each) for each in Objective])
    wishes.add_argument("--min-agreement", type=float, metavar="SHARE", help="such as 0.98")
    wishes.add_argument("--stay-local", action="store_true", default=None)
    wishes.add_argument("--only-cuts", action="store_true", default=None)
    wishes.add_argument(
        "--max-similarity",
        type=float,
        metavar="SSIM",
        help="of pictures that an eavesdropper could rebuild from what is sent, as far as measured",
    )
    wishes.add_argument("--bytes-per-hour", type=float, metavar="N")
    parser.add_argument(
        "--follow",
        action="store_true",
        help="show the cloud's answer too where it came after the budget",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_tls(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    answers: dict[str, Answer] = {}
    finals: dict[str, Answer] = {}
    faults: dict[str, str] = {}
    gone: RemoteUnavailable | None = None
    wish = Wish(
        objective=Objective(options.objective) if options.objective else None,
        min_agreement=options.min_agreement,
        stay_local=options.stay_local,
        only_cuts=options.only_cuts,
        max_similarity=options.max_similarity,
        bytes_per_hour=options.bytes_per_hour,
    )
    with Client(options.edge, security=security(options)) as client:
        inputs = read_inputs(client, options.input, model=options.model)
        for name, picture in find_pictures(options.sources, most_frames=options.frames):
            try:
                answers[name] = client.infer(
                    picture.read_bytes() if isinstance(picture, Path) else picture,
                    inputs=inputs,
                    outputs=options.output or None,
                    budget_ms=options.budget,
                    model=options.model,
                    follow=options.follow,
                    wish=wish,
                )
            except RemoteUnavailable as error:  # for the others too; what was answered is shown
                gone = error
                break
            except (RemoteError, OSError) as error:  # this picture's fault: the others go on
                faults[name] = _words(error)
                complain(f"{name}: {faults[name]}")
        if answers and not options.json:
            console.print(answer_table("answers", answers))
            for remarks in dict.fromkeys(each.remarks for each in answers.values()):
                if remarks:
                    print_line(f"note: {remarks}")
        if gone is None:
            for name, final in late_answers(client, answers):
                finals[name] = final
                if not options.json:
                    print_line(final_line(name, answers[name], final))
    if gone is not None and not answers:
        raise gone
    if options.json:
        followed = {"finals": _rows(finals)} if options.follow else {}
        print_json({"answers": _rows(answers), "errors": faults, **followed})
    if gone is not None:
        raise gone
    return _SOME_FAILED if faults else 0


def _words(error: RemoteError | OSError) -> str:
    """What went wrong with one picture."""
    if not isinstance(error, OSError):
        return str(error)
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def late_answers(client: Client, answers: Mapping[str, Answer]) -> Iterator[tuple[str, Answer]]:
    """The final answers to those that are to be followed by one, as they come."""
    names = {answer.request_id: name for name, answer in answers.items() if answer.final_follows}
    try:
        for final in client.finals.rest():
            if final.request_id in names:
                yield names[final.request_id], final
    except RemoteError as error:  # the edge has gone, or is silent: the first answers stand
        complain(f"no more final answers: {error}")


def final_line(name: str, answer: Answer, final: Answer) -> str:
    """What came of a picture after its first answer."""
    picture = Path(name).name
    if final.fallback:
        return f"{picture}: {answer.label} stands, {final.fallback}"
    changed = f"instead of {answer.label}" if final.label != answer.label else "as before"
    return (
        f"{picture}: {final.label} ({final.confidence:.0%}), {changed}; "
        f"by {final.plan} after {final.total_ms:.0f} ms"
    )


def _rows(answers: Mapping[str, Answer]) -> list[dict[str, object]]:
    return [{"file": file, **as_json(answer)} for file, answer in answers.items()]


def read_inputs(client: Client, texts: Sequence[str], *, model: str) -> dict[str, Array]:
    """The further inputs that NAME=VALUES texts say, as the model declares them.

    RequestError for what the model does not take.
    """
    if not texts:
        return {}
    specs = {spec.name: spec for spec in client.inputs(model)}
    found: dict[str, Array] = {}
    for text in texts:
        name, equals, values = text.rpartition("=")
        if not equals or name not in specs:
            known = ", ".join(map(str, specs.values())) or "nothing"
            raise RequestError(
                f"--input {text!r} is not NAME=VALUES of an input; "
                f"beside a picture this model takes {known}"
            )
        found[name] = from_text(values, specs[name])
    return found


def find_pictures(
    sources: Iterable[str], *, most_frames: int
) -> Iterator[tuple[str, Path | npt.NDArray[np.uint8]]]:
    """Names and what to send; PictureError if there is nothing to send."""
    found = False
    for source in sources:
        for item in _find(source, most_frames):
            found = True
            yield item
    if not found:
        raise PictureError("no pictures there")


def _find(source: str, most_frames: int) -> Iterator[tuple[str, Path | npt.NDArray[np.uint8]]]:
    path = Path(source)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in _SUFFIXES:
                yield str(file), file
    elif source.startswith(_CAMERA) or path.suffix.lower() in _VIDEO_SUFFIXES:
        from ..devices.camera import frames  # with the extra `sources` alone

        with contextlib.closing(frames(source)) as pictures:
            for number, picture in enumerate(itertools.islice(pictures, most_frames)):
                yield f"{source}#{number}", picture
    else:
        yield source, path


def as_json(answer: Answer) -> dict[str, object]:
    """An answer without its full probability vector.

    Outputs and what is missing of them are there only where a model has any.
    """
    outputs = answer.outputs
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
        **(answer.came.parameters() if answer.came else {}),
        **({"outputs": {k: v[0].tolist() for k, v in outputs.items()}} if outputs else {}),
        **({"remarks": answer.remarks} if answer.remarks else {}),
        **({"missing_outputs": list(answer.missing_outputs)} if answer.missing_outputs else {}),
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
    if answer.came and not answer.came.whole:
        words.append(str(answer.came))
    if answer.missing_outputs:
        words.append(f"without {', '.join(answer.missing_outputs)}")
    if not answer.within_budget:
        words.append("LATE")
    return ", ".join(words)
