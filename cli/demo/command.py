"""The demo itself: build, start, send, cut off, report."""

import argparse
import io
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...client import Client
from ...shared.bundle import Bundle, find_bundle, open_bundle
from ...shared.errors import BundleError, UnknownModel
from ...shared.paths import Paths
from ...shared.picture import decode_picture
from ...shared.signing import SigningKey, TrustStore
from ..console import StepProgress, complain, console, notes, print_json
from ..infer import answer_table
from .outcome import Outcome, Section
from .processes import Daemon
from .relay import Link, Relay

LINKS = (
    Link("wifi", rtt_ms=8.5, mbps=52.0),
    Link("lte", rtt_ms=51.0, mbps=11.4),
    Link("3g", rtt_ms=151.0, mbps=1.5),
)
BUDGETS_MS = (60.0, 200.0, 800.0)
KILLED = "cloud killed"
_THUMBNAIL_PX = 160
_UNANSWERED = 1


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "demo", help="one real model across two real processes, on pictures that packages ship"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--report", type=Path, default=None, metavar="FILE", help="HTML report")
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS_MS), metavar="MS")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    paths = Paths.from_environment()
    folder = paths.root / "demo"
    bundle = _bundle(paths, folder)
    pictures = sorted((folder / "evaluation").iterdir())
    wanted = _own_answers(bundle, pictures)
    sections = _send_all(paths, bundle, pictures, options.budgets, quiet=options.json)
    outcome = Outcome(sections, wanted)
    report = options.report or folder / "report.html"
    _write_report(report, bundle, pictures, sections)
    if options.json:
        print_json(outcome.as_json(report))
    else:
        console.print(outcome.summary())
        console.print(
            f"\n{outcome.answered} of {outcome.asked} requests answered, "
            f"{outcome.in_time} within their budget."
        )
        console.print(f"report: {report}")
    return 0 if outcome.answered == outcome.asked else _UNANSWERED


def _bundle(paths: Paths, folder: Path) -> Bundle:
    """The demo's bundle: built on the first run, reused afterwards."""
    from .recipe import NAME, make_recipe

    key = SigningKey.load_or_create(paths.signing_key)
    trust = TrustStore(frozenset({key.public_hex}))
    try:
        return open_bundle(find_bundle(NAME, root=paths.bundles), trust=trust)
    except UnknownModel:
        notes.print("first run: building the bundle, about two minutes")
    except BundleError as error:
        raise BundleError(f"{error}; remove {paths.bundles / NAME} to build it anew") from error
    from ..building import build_recipe

    with StepProgress() as progress:
        return build_recipe(make_recipe(folder), root=paths.bundles, progress=progress)


def _own_answers(bundle: Bundle, pictures: Sequence[Path]) -> dict[str, str]:
    """What the large model says of each picture when nothing is compressed."""
    from ...cloud.compiler.cloud_side import CloudSide
    from ...devices.models import DeviceModels

    models, cloud = DeviceModels(bundle), CloudSide.open(bundle)
    answers: dict[str, str] = {}
    for file in pictures:
        pixels = models.resize_large(decode_picture(file.read_bytes()))
        answers[file.name] = bundle.labels[int(np.argmax(cloud.run("", pixels)))]
    return answers


def _send_all(
    paths: Paths,
    bundle: Bundle,
    pictures: Sequence[Path],
    budgets_ms: Sequence[float],
    *,
    quiet: bool,
) -> list[Section]:
    logs = paths.root / "demo"
    name = bundle.manifest.name
    sections: list[Section] = []
    cloud_arguments = ["--bundles", str(paths.bundles), "--listen", "127.0.0.1:0", "--preload"]
    with Daemon("cloud", cloud_arguments, log=logs / "cloud.log") as cloud:
        with Client(str(cloud.address)) as client:
            client.wait_until_loaded(name)
        relay = Relay(cloud.address, LINKS[0])
        edge_arguments = ["--bundle", str(bundle.path), "--listen", "127.0.0.1:0"]
        edge_arguments += ["--cloud", str(relay.start())]
        try:
            with (
                Daemon("edge", edge_arguments, log=logs / "edge.log") as edge,
                Client(str(edge.address)) as client,
            ):
                for link in LINKS:
                    relay.link = link
                    for budget_ms in budgets_ms:
                        section = Section(link.name, budget_ms)
                        for file in pictures:
                            section.ask(client, file, model=name)
                        sections.append(section)
                        _show(section, quiet=quiet)
                relay.link = LINKS[0]
                sections.append(_killed(cloud, client, pictures, name, budgets_ms[-1]))
                _show(sections[-1], quiet=quiet)
        finally:
            relay.stop()
    return sections


def _killed(
    cloud: Daemon, client: Client, pictures: Sequence[Path], model: str, budget_ms: float
) -> Section:
    """Kills the cloud while the first request is under way, and carries on asking."""
    section = Section(KILLED, budget_ms)
    first, *others = pictures
    killer = threading.Thread(target=cloud.kill)
    killer.start()
    section.ask(client, first, model=model)
    killer.join()
    for file in others:
        section.ask(client, file, model=model)
    return section


def _show(section: Section, *, quiet: bool) -> None:
    if not quiet:
        title = f"\n{section.condition}, {section.budget_ms:g} ms"
        console.print(answer_table(title, section.answers))
    for name, fault in section.faults.items():
        complain(f"{name}: not answered: {fault}")


def _write_report(
    file: Path, bundle: Bundle, pictures: Sequence[Path], sections: Sequence[Section]
) -> None:
    """The outcome as one HTML page."""
    from ...devices.probe import probe
    from ...report.demo import DemoAnswer, DemoRun, render

    thumbnails = {picture.name: _thumbnail(picture) for picture in pictures}
    run = DemoRun(
        bundle=bundle.manifest.name,
        version=bundle.manifest.version,
        table=bundle.manifest.table,
        device=probe(),
        links={link.name: (link.rtt_ms, link.mbps) for link in LINKS},
        answers=[
            DemoAnswer(
                picture=name,
                thumbnail=thumbnails[name],
                condition=section.condition,
                budget_ms=section.budget_ms,
                answer=section.answers.get(name),
                fault=section.faults.get(name, ""),
            )
            for section in sections
            for name in (*section.answers, *section.faults)
        ],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render(run))


def _thumbnail(file: Path) -> bytes:
    with Image.open(file) as image:
        small = image.convert("RGB")
        small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
        return buffer.getvalue()
