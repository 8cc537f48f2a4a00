import asyncio
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hybridge.cli import infer as infer_module
from hybridge.cli.infer import as_json, find_pictures, note
from hybridge.cli.main import main
from hybridge.client import Answer, Client
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.bundle import Bundle
from hybridge.shared.came import Came
from hybridge.shared.daemon import OnListening
from hybridge.shared.errors import PictureError, RemoteUnavailable
from hybridge.shared.picture import decode_picture
from hybridge.shared.security import Address

from ..bundles import NAME, Small
from ..edge.clouds import FakeCloud
from ..edge.policies import Insistent
from ..threads import serving

Capture = pytest.CaptureFixture[str]


def infer(edge: Address, *arguments: object) -> int:
    return main(["infer", "--edge", str(edge), *map(str, arguments)])


def test_a_folder_as_json(small: Small, edge: Address, pictures: Path, capsys: Capture) -> None:
    assert infer(edge, pictures, "--json", "--budget", "20000") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["errors"] == {}
    assert [row["file"] for row in said["answers"]] == [
        str(pictures / name) for name in ("a.png", "b.JPG", "more/c.webp")
    ]
    for row in said["answers"]:
        probabilities = small.light(decode_picture(Path(row["file"]).read_bytes()))
        assert row["labels"][0] == f"class {probabilities.argmax()}"
        assert row["confidence"] == pytest.approx(float(probabilities.max()), rel=1e-5)
        assert (row["plan"], row["budget_ms"], row["within_budget"]) == ("local", 20_000, True)
        assert (row["provisional"], row["fallback"], row["sent_bytes"]) == (False, "", 0)
        assert row["steps_ms"]["light"] > 0


def test_files_as_a_table(edge: Address, pictures: Path, capsys: Capture) -> None:
    assert infer(edge, pictures / "b.JPG", pictures / "a.png", "--budget", "20000") == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if "picture" in line)
    assert header.split() == ["picture", "label", "sure", "plan", "ms", "budget", "sent", "note"]
    rows = [line for line in lines if line.startswith(("a.png", "b.JPG"))]
    assert [row.split()[0] for row in rows] == ["b.JPG", "a.png"]
    assert all(" local " in row and " 20000 " in row for row in rows)


def test_one_bad_picture_costs_only_itself(edge: Address, pictures: Path, capsys: Capture) -> None:
    bad, missing = pictures / "notes.txt", pictures / "nowhere.png"
    assert infer(edge, bad, pictures / "a.png", missing, "--json") == 65
    said = capsys.readouterr()
    answered = json.loads(said.out)
    assert [row["file"] for row in answered["answers"]] == [str(pictures / "a.png")]
    assert set(answered["errors"]) == {str(bad), str(missing)}
    assert "bad picture: 10 bytes" in answered["errors"][str(bad)]
    assert f"{missing}: " in said.err


def test_an_edge_that_goes_away_takes_no_answer_along(
    edge: Address, pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Once(Client):
        """Loses its edge after the first answer."""

        answered = False

        def infer(self, *arguments: object, **options: object) -> Answer:
            if self.answered:
                raise RemoteUnavailable("the socket closed")
            self.answered = True
            return super().infer(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(infer_module, "Client", Once)
    assert infer(edge, pictures, "--json") == 69
    said = capsys.readouterr()
    assert len(json.loads(said.out)["answers"]) == 1
    assert said.err == "hybridge: remote unavailable: the socket closed\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--budget", "0"], 65, "bad latency budget: 0 ms"),
        (["--budget", "-5"], 65, "bad latency budget: -5 ms"),
        (["--budget", "1e9"], 65, "at most"),
        (["--budget", "nan"], 65, "bad latency budget"),
        (["--model", "other"], 65, "NOT_FOUND: unknown model"),
        (["--tls-ca", "/nowhere.pem"], 78, "cannot read /nowhere.pem"),
        (["--tls-cert", "/nowhere.pem"], 78, "come together"),
    ],
)
def test_what_cannot_be_sent(
    edge: Address, pictures: Path, capsys: Capture, arguments: list[str], code: int, words: str
) -> None:
    assert infer(edge, pictures / "a.png", *arguments) == code
    assert words in capsys.readouterr().err


def test_nobody_there(pictures: Path, capsys: Capture) -> None:
    assert infer(Address("127.0.0.1", 1), pictures, "--model", "small") == 69
    said = capsys.readouterr()
    assert "remote unavailable" in said.err
    assert said.out == ""


def test_beyond_loopback_it_takes_a_word(pictures: Path, capsys: Capture) -> None:
    assert infer(Address("192.0.2.7", 8600), pictures) == 78
    assert "--insecure" in capsys.readouterr().err


def test_nothing_to_send(edge: Address, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(PictureError, match="no pictures there"):
        list(find_pictures([str(tmp_path)], most_frames=1))
    assert infer(edge, tmp_path) == 65


SLOW_S, BUDGET_MS = 1.5, 500


class SlowCloud(FakeCloud):
    """Takes its time for pictures, though it says otherwise."""

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        await self.start(Address("127.0.0.1", 0))
        assert on_listening is not None
        on_listening(self.address)

    async def shutdown(self) -> None:
        await self.server.stop(None)

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: oip.Context
    ) -> pb.ModelInferResponse:
        await asyncio.sleep(SLOW_S)  # that slowness itself
        return self.answer


class InsistentEdge(EdgeDaemon):
    """Asks the cloud however long that takes."""

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        await super().startup(on_listening=on_listening)
        assert self._agent is not None
        self._agent.policy = Insistent()


@pytest.fixture
def late_edge(small: Small, bundle: Bundle) -> Iterator[Address]:
    """An edge whose cloud is late."""
    with serving(SlowCloud(small.bundle)) as cloud:
        config = EdgeConfig(
            bundle=bundle.path, listen=Address("127.0.0.1", 0), trust=small.trust, cloud=cloud
        )
        with serving(InsistentEdge(config)) as address:
            yield address


def test_first_answers_and_then_the_clouds(
    late_edge: Address, pictures: Path, capsys: Capture
) -> None:
    assert infer(late_edge, pictures / "a.png", "--budget", BUDGET_MS, "--follow") == 0
    said = capsys.readouterr()
    assert said.err == ""
    row = next(line for line in said.out.splitlines() if line.startswith("a.png "))
    assert " local " in row
    assert "provisional, cloud late" in row
    *_, last = said.out.splitlines()
    assert last.startswith("a.png: class 4 (100%), ")
    assert said.out.count("a.png: ") == 1


def test_first_answers_and_the_clouds_as_json(
    late_edge: Address, pictures: Path, capsys: Capture
) -> None:
    arguments = ("--budget", BUDGET_MS, "--follow", "--json")
    assert infer(late_edge, pictures / "a.png", *arguments) == 0
    said = json.loads(capsys.readouterr().out)
    (answer,), (final,) = said["answers"], said["finals"]
    assert answer["request_id"] == final["request_id"]
    assert answer["file"] == final["file"] == str(pictures / "a.png")
    assert (answer["plan"], answer["provisional"]) == ("local", True)
    assert (final["labels"][0], final["fallback"]) == ("class 4", "")
    assert final["total_ms"] >= SLOW_S * 1e3 > answer["total_ms"]


def test_nothing_to_follow(edge: Address, pictures: Path, capsys: Capture) -> None:
    assert infer(edge, pictures / "a.png", "--budget", "20000", "--follow", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (len(said["answers"]), said["finals"]) == (1, [])
    assert infer(edge, pictures / "a.png", "--model", NAME, "--json") == 0
    assert "finals" not in json.loads(capsys.readouterr().out)


def test_an_answer_from_a_part_says_of_how_much() -> None:
    answer = Answer(
        request_id="1", labels=("cat",), probabilities=np.array([1.0], np.float32),
        plan="split:c/int8/layers-30", confidence=1.0, provisional=False, fallback="",
        sent_bytes=7_930, total_ms=90.0, budget_ms=100.0, within_budget=True, steps_ms={},
        round_trip_ms=95.0, came=Came(3, 5, 4_090, 7_930),
    )  # fmt: skip
    assert note(answer) == "answered from 3 of 5 layers, 4.1 of 7.9 kB"
    assert as_json(answer)["layers"] == 3
    whole = dataclasses.replace(answer, came=Came(5, 5, 7_930, 7_930))
    assert note(whole) == ""
    assert as_json(whole)["layers_in_all"] == 5


def test_a_file_that_is_not_there_is_said_in_words(
    edge: Address, pictures: Path, capsys: Capture
) -> None:
    assert infer(edge, pictures / "missing.jpg") == 65
    said = capsys.readouterr().err
    assert "missing.jpg: cannot be read: no such file or directory" in said
    assert "Errno" not in said


def test_an_agreement_nobody_can_promise_is_told(
    edge: Address, pictures: Path, capsys: Capture
) -> None:
    assert infer(edge, pictures / "a.png", "--min-agreement", "0.9999") == 0
    assert "note: min_agreement 0.9999 is not guaranteed" in capsys.readouterr().out
