"""Options that several commands share."""

import argparse
from pathlib import Path

from ..shared.objective import Objective
from ..shared.paths import Paths
from ..shared.security import Security
from ..shared.signing import SigningKey, TrustStore


def add_objective(group: "argparse._ActionsContainer") -> None:
    """What is to be best, by name."""
    group.add_argument(
        "--objective",
        choices=[str(each) for each in Objective],
        help="what is to be best; all but accuracy keep to --min-agreement (default: the bundle's)",
    )


def add_tls(parser: argparse.ArgumentParser) -> None:
    """The options of transport security."""
    group = parser.add_argument_group("transport security (loopback needs none)")
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM certificate to present")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its PEM key")
    group.add_argument("--tls-ca", type=Path, metavar="FILE", help="PEM authority of the others")
    group.add_argument(
        "--insecure", action="store_true", help="allow plain connections beyond loopback"
    )


def security(options: argparse.Namespace) -> Security:
    """What those options say."""
    return Security(
        certificate=options.tls_cert,
        key=options.tls_key,
        authority=options.tls_ca,
        insecure=options.insecure,
    )


def add_bundles(parser: argparse.ArgumentParser) -> None:
    """Where bundles are, and whose are run."""
    paths = Paths.from_environment()
    parser.add_argument(
        "--bundles",
        type=Path,
        default=paths.bundles,
        metavar="DIR",
        help=f"folder of bundles ({paths.bundles})",
    )
    parser.add_argument(
        "--trust",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="public key of a builder to trust beside your own; may be repeated",
    )


def trust(options: argparse.Namespace) -> TrustStore:
    """This machine's own key, those in its trusted/ folder, and those named."""
    paths = Paths.from_environment()
    store = TrustStore.read(paths.trusted, extra=options.trust)
    if paths.signing_key.exists():
        own = SigningKey.load_or_create(paths.signing_key).public_hex
        store = TrustStore(store.keys | {own})
    return store
