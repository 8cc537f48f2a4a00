from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hybridge.shared.errors import BundleError
from hybridge.shared.privacy import (
    FILE,
    Privacy,
    decode_privacy,
    encode_privacy,
    read_privacy,
)
from hybridge.shared.signing import SigningKey, TrustStore

from .. import exposed
from ..bundles import SPLIT

if TYPE_CHECKING:
    from pathlib import Path

    from ..bundles import Small

# Signed with the key of RFC 8032, section 7.1, test 3.
PUBLIC = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
MODEL = "a" * 64
SIGNED = "YUuK3jgBXPy/fqa8EkjfihW1ZYHPcF8Wg3wlZa1l8Bb9OsB1Ibs3/eeY2xn0rnc+ULieW7duv2g7Lcld/gseBg=="
FROZEN = """{"privacy":
{
  "model": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "attacks": [],
  "format": 1
},
"signature":
{
  "algorithm": "ed25519",
  "public_key": "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
  "signature": "@"
}}
""".replace("@", SIGNED)


@pytest.fixture
def known(small: Small) -> Privacy:
    return exposed.privacy(small.bundle.manifest, {SPLIT: 0.4})


def test_it_comes_back_as_it_was(small: Small, known: Privacy) -> None:
    encoded = encode_privacy(known, key=small.key)
    assert decode_privacy(encoded, model=known.model, trust=small.trust) == known
    assert encode_privacy(known, key=small.key) == encoded


def test_every_altered_byte_is_found(small: Small, known: Privacy) -> None:
    encoded = encode_privacy(known, key=small.key)
    for at in range(0, len(encoded), 7):
        damaged = bytearray(encoded)
        damaged[at] ^= 1
        try:
            found = decode_privacy(bytes(damaged), model=known.model, trust=small.trust)
        except BundleError:
            continue
        assert found == known  # only white space around what is signed


def test_a_figure_made_smaller_is_told(small: Small, known: Privacy) -> None:
    encoded = encode_privacy(known, key=small.key).replace(b'"ssim_p95": 0.4', b'"ssim_p95": 0.1')
    with pytest.raises(BundleError, match=r"privacy\.json does not match.*altered"):
        decode_privacy(encoded, model=known.model, trust=small.trust)


def test_who_is_not_trusted_measures_nothing(small: Small, known: Privacy) -> None:
    encoded = encode_privacy(known, key=small.key)
    with pytest.raises(BundleError, match=r"privacy\.json was signed by .* does not trust"):
        decode_privacy(encoded, model=known.model, trust=TrustStore(frozenset({PUBLIC})))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2; this version reads 1"),
        ({"model": "b" * 64}, "of another large model; remove it, and measure again"),
        ({"more": 1}, "unknown field `more`"),
        ({"attacks": 1}, "measure again"),
    ],
)
def test_what_cannot_be_read_says_why(
    small: Small, known: Privacy, change: dict[str, object], message: str
) -> None:
    content = json.loads(encode_privacy(known, key=small.key))["privacy"] | change
    text = json.dumps(content).encode()
    encoded = b'{"privacy":' + text + b',"signature":' + small.key.sign(text) + b"}"
    with pytest.raises(BundleError, match=message):
        decode_privacy(encoded, model=known.model, trust=small.trust)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"privacy":{}}', b"\xff", b'{"privacy":1'])
def test_rubbish_is_told(small: Small, text: bytes) -> None:
    with pytest.raises(BundleError, match=r"privacy\.json"):
        decode_privacy(text, model=MODEL, trust=small.trust)


def test_the_attack_that_went_furthest_counts(small: Small) -> None:
    manifest = small.bundle.manifest
    contract = manifest.contract(SPLIT).id
    tried = exposed.privacy(manifest, {SPLIT: 0.4})
    for p95, victims in ((0.7, "e" * 64), (0.5, "f" * 64)):
        tried = tried.with_attack(exposed.attack(manifest, {SPLIT: p95}, victims=victims))
    found = tried.strongest(str(SPLIT), contract)
    assert found is not None
    assert (len(tried.attacks), found.ssim_p95) == (3, 0.7)


def test_nobody_comes_less_far_than_by_a_guess(small: Small) -> None:
    tried = exposed.privacy(small.bundle.manifest, {SPLIT: 0.1})
    found = tried.strongest(str(SPLIT), small.bundle.manifest.contract(SPLIT).id)
    assert found == tried.attacks[0].guess
    assert found.ssim_p95 > 0.1


def test_an_attack_that_is_repeated_takes_its_own_place(small: Small) -> None:
    manifest = small.bundle.manifest
    again = exposed.privacy(manifest, {SPLIT: 0.4}).with_attack(
        exposed.attack(manifest, {SPLIT: 0.3})
    )
    found = again.strongest(str(SPLIT), manifest.contract(SPLIT).id)
    assert found is not None
    assert (len(again.attacks), found.ssim_p95) == (1, 0.3)


def test_nothing_is_known_of_another_contract_or_plan(small: Small) -> None:
    manifest = small.bundle.manifest
    contract = manifest.contract(SPLIT).id
    other = Privacy(
        model=manifest.large.sha256,
        attacks=(exposed.attack(manifest, {SPLIT: 0.1}, contract="c" * 64),),
    )
    assert other.strongest(str(SPLIT), contract) is None
    assert exposed.privacy(manifest, {SPLIT: 0.1}).strongest("split:x/int8/raw", contract) is None


def test_beside_a_bundle(small: Small, known: Privacy, tmp_path: Path) -> None:
    from hybridge.shared.bundle import open_bundle

    path = small.rewrite(tmp_path, lambda manifest: manifest)
    bundle = open_bundle(path, trust=small.trust)
    assert read_privacy(bundle, trust=small.trust) is None
    (path / FILE).write_bytes(encode_privacy(known, key=small.key))
    assert read_privacy(bundle, trust=small.trust) == known
    # The bundle's own hash, by which profiles and fleets know it, stays.
    assert open_bundle(path, trust=small.trust).sha256 == bundle.sha256
    (path / FILE).unlink()
    (path / FILE).mkdir()
    with pytest.raises(BundleError, match=r"cannot read .*privacy\.json"):
        read_privacy(bundle, trust=small.trust)


def test_the_format_is_frozen(tmp_path: Path) -> None:
    seed = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"
    (tmp_path / "key").write_bytes(bytes.fromhex(seed))
    key = SigningKey.load_or_create(tmp_path / "key")
    nothing = Privacy(model=MODEL, attacks=())
    assert encode_privacy(nothing, key=key).decode() == FROZEN
    trust = TrustStore(frozenset({PUBLIC}))
    assert decode_privacy(FROZEN.encode(), model=MODEL, trust=trust) == nothing
