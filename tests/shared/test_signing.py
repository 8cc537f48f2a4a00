import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.errors import BundleError, ConfigError
from hybridge.shared.signing import SigningKey, TrustStore

# RFC 8032, section 7.1, test 3.
SEED = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
PUBLIC = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
MESSAGE = bytes.fromhex("af82")
SIGNATURE = base64.b64encode(
    bytes.fromhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
).decode()


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    file = tmp_path / "signing.key"
    file.write_bytes(SEED)
    return SigningKey.load_or_create(file)


@pytest.fixture
def trust(key: SigningKey) -> TrustStore:
    return TrustStore(frozenset({key.public_hex}))


def test_signatures_are_those_of_the_rfc(key: SigningKey) -> None:
    assert key.public_hex == PUBLIC
    signed = json.loads(key.sign(MESSAGE))
    assert signed == {"algorithm": "ed25519", "public_key": PUBLIC, "signature": SIGNATURE}


def test_a_signature_of_the_rfc_is_verified() -> None:
    signed = {"algorithm": "ed25519", "public_key": PUBLIC, "signature": SIGNATURE}
    trust = TrustStore(frozenset({PUBLIC}))
    assert trust.verify(MESSAGE, json.dumps(signed).encode()) == PUBLIC


@given(st.binary(max_size=99), st.data())
def test_another_message_is_found(message: bytes, data: st.DataObject) -> None:
    key = SigningKey.load_or_create(_seed_file())
    trust = TrustStore(frozenset({key.public_hex}))
    assert trust.verify(message, key.sign(message)) == key.public_hex
    other = data.draw(st.binary(max_size=99).filter(lambda other: other != message))
    with pytest.raises(BundleError, match="was altered"):
        trust.verify(other, key.sign(message))


def _seed_file() -> Path:
    class Seed(type(Path())):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            return SEED

    return Seed("seed")


def test_who_is_not_trusted(key: SigningKey, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"signed by {PUBLIC[:16]}"):
        TrustStore(frozenset()).verify(b"m", key.sign(b"m"))
    stranger = SigningKey.load_or_create(tmp_path / "stranger.key")
    forged = json.loads(stranger.sign(b"m")) | {"public_key": PUBLIC}
    with pytest.raises(BundleError, match="was altered"):
        TrustStore(frozenset({PUBLIC})).verify(b"m", json.dumps(forged).encode())


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b"\xff",
        b'{"public_key": "", "signature": ""}',
        b'{"algorithm": "ed25519", "public_key": 5, "signature": ""}',
    ],
)
def test_what_is_no_signature(trust: TrustStore, file: bytes) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        trust.verify(b"m", file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"public_key": "00"}, "cannot be read"),
        ({"public_key": "zz" * 32}, "cannot be read"),
        ({"signature": "not base64!"}, "cannot be read"),
        ({"signature": ""}, "was altered"),
        ({"signature": SIGNATURE[:-8] + "AAAA"}, "was altered"),
        ({"algorithm": "rsa"}, "algorithm 'rsa'"),
    ],
)
def test_damaged_signatures(
    key: SigningKey, trust: TrustStore, change: dict[str, Any], message: str
) -> None:
    signed = json.loads(key.sign(MESSAGE)) | change
    with pytest.raises(BundleError, match=message):
        trust.verify(MESSAGE, json.dumps(signed).encode())


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "signing.key"
    first = SigningKey.load_or_create(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert SigningKey.load_or_create(file).public_hex == first.public_hex
    other = SigningKey.load_or_create(tmp_path / "other.key")
    assert other.public_hex != first.public_hex


def test_a_key_somebody_else_made_meanwhile_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "signing.key"
    read = Path.read_bytes

    def read_late(path: Path) -> bytes:
        monkeypatch.setattr(Path, "read_bytes", read)
        file.write_bytes(SEED)
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", read_late)
    assert SigningKey.load_or_create(file).public_hex == PUBLIC


@pytest.mark.parametrize("seed", [b"", SEED[:-1], SEED + b"\n"])
def test_what_is_no_key(tmp_path: Path, seed: bytes) -> None:
    file = tmp_path / "signing.key"
    file.write_bytes(seed)
    with pytest.raises(ConfigError, match=f"{len(seed)} bytes instead of 32"):
        SigningKey.load_or_create(file)
    assert file.read_bytes() == seed


def test_trusted_keys_are_files(tmp_path: Path) -> None:
    (tmp_path / "friend.pub").write_text(PUBLIC.upper() + "\n")
    (tmp_path / "notes.txt").write_text("no key")
    extra = tmp_path / "colleague"
    public = SigningKey.load_or_create(tmp_path / "colleague.key").public_hex
    extra.write_text(public)
    assert TrustStore.read(tmp_path).keys == {PUBLIC}
    assert TrustStore.read(tmp_path, extra=[extra]).keys == {PUBLIC, public}
    assert TrustStore.read(tmp_path / "nowhere").keys == set()


@pytest.mark.parametrize("text", ["", "hello", "00" * 31, "zz" * 32])
def test_what_is_no_public_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "friend.pub").write_text(text)
    with pytest.raises(ConfigError, match=r"friend\.pub holds no Ed25519 public key"):
        TrustStore.read(tmp_path)
    with pytest.raises(ConfigError, match="holds no Ed25519 public key"):
        TrustStore.read(tmp_path / "nowhere", extra=[tmp_path / "missing.pub"])
