from pathlib import Path

from rich.console import Console

from hybridge.cli.demo.outcome import Outcome, Section
from hybridge.client import Client


def test_a_request_that_nobody_answers_is_counted(tmp_path: Path) -> None:
    """Nothing listens on port 1: asked, not answered, and told so."""
    file = tmp_path / "cat.png"
    file.write_bytes(b"any bytes")
    section = Section("wifi", 60.0)
    with Client("127.0.0.1:1") as client:
        section.ask(client, file, model="m")
    outcome = Outcome([section], {"cat.png": "cat"})
    assert (outcome.asked, outcome.answered, outcome.in_time) == (1, 0, 0)
    told = outcome.as_json(tmp_path / "report.html")
    assert (told["asked"], told["answered"]) == (1, 0)
    console = Console(width=160)
    with console.capture() as written:
        console.print(outcome.summary())
    assert "0/1" in written.get()
    assert list(section.faults) == ["cat.png"]
