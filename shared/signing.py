"""Ed25519 signatures (RFC 8032) over manifests: who made a bundle, and whom this machine trusts."""

import base64
import binascii
import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import BundleError, ConfigError

_ALGORITHM = "ed25519"


@dataclass(frozen=True)
class SigningKey:
    """A builder's private key; its public half is what other machines trust."""

    private: Ed25519PrivateKey

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """The key in a file (32 raw bytes, mode 0600), made on first use."""
        try:
            try:
                seed = path.read_bytes()
            except FileNotFoundError:
                seed = _create(path)
        except OSError as error:
            raise ConfigError(
                f"cannot keep a signing key at {path}: {error.strerror}; "
                "set HYBRIDGE_HOME to a folder where you may write"
            ) from error
        if len(seed) != 32:
            raise ConfigError(f"{path} is no signing key: {len(seed)} bytes instead of 32")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def public_hex(self) -> str:
        return self.private.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> bytes:
        """The contents of a `manifest.sig` for a manifest."""
        signature = base64.b64encode(self.private.sign(message)).decode()
        text = {"algorithm": _ALGORITHM, "public_key": self.public_hex, "signature": signature}
        return json.dumps(text, indent=2).encode() + b"\n"


@dataclass(frozen=True)
class TrustStore:
    """The public keys (hexadecimal) whose bundles this machine runs."""

    keys: frozenset[str]

    @classmethod
    def read(cls, directory: Path, *, extra: Iterable[Path] = ()) -> "TrustStore":
        """Every `*.pub` of a directory, and further files; each holds one key in hexadecimal."""
        files = [*sorted(directory.glob("*.pub")), *extra]
        return cls(frozenset(_read_public_key(file) for file in files))

    def verify(self, message: bytes, signature: bytes, *, of: str = "manifest.json") -> str:
        """The trusted key that signed the message, a file `of` that name; BundleError if none."""
        try:
            text = json.loads(signature)
            algorithm = text["algorithm"]
            key, raw = text["public_key"], base64.b64decode(text["signature"], validate=True)
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise BundleError(f"the signature of {of} cannot be read ({error})") from error
        if algorithm != _ALGORITHM:
            raise BundleError(f"{of} is signed by algorithm {algorithm!r}, not {_ALGORITHM!r}")
        try:
            public.verify(raw, message)
        except InvalidSignature:
            raise BundleError(
                f"{of} does not match its signature: it was altered; get it again from who made it"
            ) from None
        if key not in self.keys:
            raise BundleError(
                f"{of} was signed by {key[:16]}..., whom this machine does not trust; "
                "pass --trust FILE with that public key, or put it into the trusted/ folder"
            )
        return str(key)


def _create(path: Path) -> bytes:
    """A new seed, or the one that another build put there meanwhile; never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Ed25519PrivateKey.generate().private_bytes_raw())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)
    finally:
        Path(part).unlink()
    return path.read_bytes()


def _read_public_key(file: Path) -> str:
    try:
        key = file.read_text().strip().lower()
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} holds no Ed25519 public key ({error})") from error
    return key
