import logging
from pathlib import Path

import pytest

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.opening import open_shelf
from hybridge.cloud.repository import Repository
from hybridge.cloud.shelf import BundleShelf
from hybridge.shared.errors import ConfigError, UnknownContract, UnknownModel
from hybridge.shared.security import Address
from hybridge.shared.signing import SigningKey, TrustStore

from .bundles import TinyModel, write_bundle


@pytest.fixture
def load(bundles: Path, trust: TrustStore) -> Repository:
    return open_shelf(BundleShelf(root=bundles, trust=trust, max_batch=4)).repository


def blob_of_the_whole(bundle: Path) -> Path:
    return max((bundle / "blobs").iterdir(), key=lambda path: path.stat().st_size)


def alter(bundle: Path) -> None:
    blob = blob_of_the_whole(bundle)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)


def lose(bundle: Path) -> None:
    blob_of_the_whole(bundle).unlink()


def forge(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"classes": 5', '"classes": 6'))


def garble(bundle: Path) -> None:
    (bundle / "manifest.sig").write_text("{}")


def rename(bundle: Path) -> None:
    bundle.rename(bundle.with_name("3"))


BREAKS = [
    (alter, "was altered"),
    (lose, "is missing"),
    (forge, "does not match"),
    (garble, "cannot be read"),
    (rename, "calls itself tiny/2"),
]


@pytest.mark.parametrize(("break_bundle", "reason"), BREAKS)
def test_a_broken_bundle_is_left_out_and_the_others_serve(
    bundles: Path,
    key: SigningKey,
    trust: TrustStore,
    caplog: pytest.LogCaptureFixture,
    break_bundle: object,
    reason: str,
) -> None:
    assert callable(break_bundle)
    break_bundle(write_bundle(bundles, key=key, version="2"))
    with caplog.at_level(logging.WARNING):
        repository = open_shelf(BundleShelf(root=bundles, trust=trust, max_batch=4)).repository
    assert [model.version for model in repository] == ["1"]
    assert reason in caplog.text


def test_none_left_is_a_configuration_error(bundles: Path, trust: TrustStore) -> None:
    alter(bundles / "tiny" / "1")
    with pytest.raises(ConfigError, match=r"tiny/1: blob .* was altered"):
        open_shelf(BundleShelf(root=bundles, trust=trust, max_batch=4))


def test_a_stranger_is_not_trusted(bundles: Path) -> None:
    with pytest.raises(ConfigError, match="does not trust"):
        open_shelf(BundleShelf(root=bundles, trust=TrustStore(frozenset()), max_batch=4))


def test_graph_that_is_none(tmp_path: Path, key: SigningKey, trust: TrustStore) -> None:
    class Broken(TinyModel):
        def graphs(self):  # type: ignore[no-untyped-def]
            graphs = super().graphs()
            graphs["whole"].graph.node[0].op_type = "NoSuchOperator"
            return graphs

    write_bundle(tmp_path, key=key, model=Broken())
    with pytest.raises(ConfigError, match="ONNX Runtime refuses the graph"):
        open_shelf(BundleShelf(root=tmp_path, trust=trust, max_batch=4))


def test_newest_version_first_by_number(bundles: Path, key: SigningKey, trust: TrustStore) -> None:
    for version in ("9", "10"):
        write_bundle(bundles, key=key, version=version)
    repository = open_shelf(BundleShelf(root=bundles, trust=trust, max_batch=4)).repository
    assert [model.version for model in repository.versions("tiny")] == ["10", "9", "1"]
    assert repository.model("tiny").version == "10"
    assert repository.model("tiny", "9").version == "9"


def test_unknown_names_say_what_is_there(load: Repository, model: TinyModel) -> None:
    with pytest.raises(UnknownModel, match="there: tiny"):
        load.model("big")
    with pytest.raises(UnknownModel, match="there: 1"):
        load.model("tiny", "7")
    with pytest.raises(UnknownContract, match=model.at_cut.id[:12]):
        load.stage(bytes(32), name="tiny")
    found, stage = load.stage(model.at_cut.digest, name="tiny")
    assert (found.name, str(stage.key)) == ("tiny", "tiny/1/relu")


def test_tails_are_loaded_later_and_once(load: Repository) -> None:
    whole, tail = load.model("tiny").stages
    assert whole.loaded
    assert not tail.loaded
    tail.load()
    backend = tail._backend
    tail.load()
    assert tail._backend is backend


@pytest.mark.parametrize("wrong", ["instances", "queue_limit", "max_batch", "grace_ms"])
def test_settings_that_cannot_work(bundles: Path, trust: TrustStore, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        CloudConfig(bundles=bundles, trust=trust, **{wrong: -1})  # type: ignore[arg-type]


def test_bundles_must_be_a_directory(tmp_path: Path, trust: TrustStore) -> None:
    with pytest.raises(ConfigError, match="no directory"):
        CloudConfig(bundles=tmp_path / "none", trust=trust, address=Address("127.0.0.1", 0))
