"""The command line: `hybridge COMMAND`, a file per command."""

import argparse
import logging
import sys
from collections.abc import Sequence

from .. import __version__
from ..shared.errors import ConfigError, HybridgeError, meaning, public_message
from . import (
    build,
    cloud,
    compress,
    demo,
    distill,
    edge,
    infer,
    inspect,
    key,
    plan,
    privacy,
    probe,
    profile,
    rollback,
    watch,
)
from .console import complain

# fmt: off
_COMMANDS = (
    demo, build, distill, compress, inspect, plan, cloud, rollback, edge, infer, watch, probe,
    profile, privacy, key,
)
# fmt: on
_EXTRAS = {
    "ai_edge_litert": "edge",
    "zeroconf": "edge",
    "cv2": "sources",
    **dict.fromkeys(
        ("aiohttp", "grpc_health", "grpc_reflection", "onnxruntime", "prometheus_client"), "cloud"
    ),
}
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (BSD sysexits where it fails)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        code: int = options.run(options)
    except HybridgeError as error:
        complain(public_message(error))
        return meaning(error).exit_code
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0], "build")
        complain(f"{error}; pip install 'hybridge[{extra}]' brings what this needs")
        return meaning(ConfigError()).exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stderr.close()
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hybridge",
        description="One model across a device and the cloud, within a latency budget.",
    )
    parser.add_argument("--version", action="version", version=f"hybridge {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens within")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.register(commands)
    return parser
