"""What a bundle's frames give away: how well pictures were rebuilt from them by those who tried.

It stands beside the manifest, in privacy.json, because it is measured after a build, and again
whenever somebody has a better attack. It is signed as the manifest is, because limits trust it:

    {"privacy": {...}, "signature": {...}}    Ed25519 over the bytes of the first object

Every attack is kept, and the one that went furthest counts: what a frame was seen to give away, it
gives away.
"""

from typing import Annotated

import msgspec

from .bundle import Bundle
from .errors import BundleError
from .manifest import Manifest, Sha256
from .plan import Plan
from .signing import SigningKey, TrustStore

FORMAT = 1
FILE = "privacy.json"
_REMEDY = "remove it, and measure again by `hybridge privacy`"


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Likeness(_Record, frozen=True):
    """Of rebuilt pictures to their originals: SSIM (1: the same), over so many pictures.

    `ssim_p95` is what a twentieth of the pictures exceeds. `distance` is the mean one in features
    of the large model (0: the same); None where the bundle records no early ones.
    """

    pictures: Annotated[int, msgspec.Meta(ge=1)]
    ssim: float
    ssim_error: float
    ssim_p95: float
    distance: float | None = None


class Learned(_Record, frozen=True):
    """The public pictures an attacker trained on, and those that told when to stop."""

    sha256: Sha256
    learned: int
    held_out: int
    views: int


class Exposed(_Record, frozen=True):
    """A split plan, and how alike pictures were that its frames alone gave; which contract's."""

    plan: str
    contract: Sha256
    likeness: Likeness


class Attack(_Record, frozen=True):
    """One attempt to rebuild pictures, `size_px` a side, from frames.

    `victims` is the hash of the pictures that were rebuilt, none of which the attacker had seen.
    `guess` is what comes of having no frame at all, `pictures` the yardstick: what picture codecs
    leave, by plan. `layers` are the tensors that distances are taken in.
    """

    method: str
    size_px: int
    learned: Learned
    victims: Sha256
    settings: dict[str, float]
    layers: tuple[str, ...]
    guess: Likeness
    pictures: dict[str, Likeness]
    splits: tuple[Exposed, ...]
    tools: dict[str, str]

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for an attack that was only repeated."""
        return self.method, self.size_px, self.learned, self.victims, sorted(self.settings.items())


class Privacy(_Record, frozen=True):
    """All attacks on the frames of one large model."""

    model: Sha256
    attacks: tuple[Attack, ...]
    format: int = FORMAT

    def strongest(self, plan: str, contract: str) -> Likeness | None:
        """The furthest that anybody came with a plan's frames; None if nobody has tried.

        Nobody who tried comes less far than by a guess: a net that does has learned nothing.
        """
        found = [
            likeness
            for attack in self.attacks
            for each in attack.splits
            if (each.plan, each.contract) == (plan, contract)
            for likeness in (each.likeness, attack.guess)
        ]
        return max(found, key=lambda likeness: likeness.ssim_p95, default=None)

    def alike(self, plan: Plan, manifest: Manifest) -> float | None:
        """The SSIM on which limits decide, of a split's frames; None if nobody has tried."""
        found = self.strongest(str(plan), manifest.contract(plan).id)
        return found.ssim_p95 if found else None

    def with_attack(self, attack: Attack) -> "Privacy":
        """With one more, in place of the same one made before."""
        others = tuple(each for each in self.attacks if each.identity != attack.identity)
        return Privacy(model=self.model, attacks=(*others, attack))


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    privacy: msgspec.Raw
    signature: msgspec.Raw


def encode_privacy(privacy: Privacy, *, key: SigningKey) -> bytes:
    """What stands in the file."""
    content = msgspec.json.format(msgspec.json.encode(privacy, order="deterministic"))
    signature = key.sign(content).strip()
    return b"".join((b'{"privacy":\n', content, b',\n"signature":\n', signature, b"}\n"))


def decode_privacy(encoded: bytes, *, model: str, trust: TrustStore) -> Privacy:
    """BundleError unless it is trusted, one that this version reads, and of this large model."""
    try:
        signed = msgspec.json.decode(encoded, type=_Signed)
        content = bytes(signed.privacy)
        trust.verify(content, bytes(signed.signature), of=FILE)
        found = msgspec.json.decode(content, type=Privacy)
    except msgspec.DecodeError as error:
        raise BundleError(f"{FILE}: {error}; {_REMEDY}") from error
    if found.format != FORMAT:
        raise BundleError(f"{FILE} has format {found.format}; this version reads {FORMAT}")
    if found.model != model:
        raise BundleError(f"{FILE} is of another large model; {_REMEDY}")
    return found


def read_privacy(bundle: Bundle, *, trust: TrustStore) -> Privacy | None:
    """What stands beside a bundle's manifest; None if nothing does, BundleError as decoding."""
    file = bundle.path / FILE
    try:
        encoded = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror}") from error
    return decode_privacy(encoded, model=bundle.manifest.large.sha256, trust=trust)
