"""Two network namespaces, one for the device and one for the cloud, gone when the block ends."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridge.shared.errors import ConfigError

EDGE_HOST, CLOUD_HOST = "10.77.0.1", "10.77.0.2"
DEVICE = "wan0"
_TUN = Path("/dev/net/tun")
_NAMED = Path("/var/run/netns")
_PREFIX = "hybridge-"
_CLONE_NEWNET = 0x40000000
_SYSCTL = "/proc/sys/net/ipv4"


@dataclass(frozen=True, slots=True)
class Namespace:
    """One namespace by its name."""

    name: str

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command that runs another one inside."""
        return ["ip", "netns", "exec", self.name, *arguments]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside; devices and sockets made meanwhile stay there."""
        with Path("/proc/thread-self/ns/net").open() as home, (_NAMED / self.name).open() as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    def sysctl(self, name: str, value: str = "") -> str:
        """Sets a TCP setting in here, if a value is given, and says what it is."""
        path = f"{_SYSCTL}/{name}"
        if value:
            _ip("netns", "exec", self.name, "sh", "-c", 'echo "$1" > "$0"', path, value)
        return _ip("netns", "exec", self.name, "cat", path).strip()


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The device's and the cloud's."""

    edge: Namespace
    cloud: Namespace

    def congestion_control(self) -> str:
        """What TCP uses in both."""
        return self.edge.sysctl("tcp_congestion_control")


def why_not() -> str:
    """What keeps this process from having namespaces of its own; empty if nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not _TUN.exists():
        return f"no {_TUN} (the kernel's tun module)"
    if shutil.which("ip") is None:
        return "no `ip` (Debian's package iproute2)"
    trial = f"{_PREFIX}trial-{os.getpid()}"
    try:  # root in a container may still not be allowed to
        _ip("netns", "add", trial)
    except ConfigError as error:
        return str(error)
    _remove(trial)
    return ""


@contextlib.contextmanager
def two_namespaces(*, congestion_control: str = "") -> Iterator[Namespaces]:
    """Makes two with names of their own; ConfigError where that is not possible.

    TCP forgets connections that have ended, so that none learns from one before it. Without a word
    of it, congestion control is the system's.
    """
    if reason := why_not():
        raise ConfigError(f"the WAN laboratory cannot run here: {reason}")
    _remove_orphans()
    made = Namespaces(*(Namespace(f"{_PREFIX}{side}-{os.getpid()}") for side in ("edge", "cloud")))
    with contextlib.ExitStack() as stack:
        for namespace in (made.edge, made.cloud):
            _ip("netns", "add", namespace.name)
            stack.callback(_remove, namespace.name)
            _ip("-n", namespace.name, "link", "set", "lo", "up")
            namespace.sysctl("tcp_no_metrics_save", "1")
            if congestion_control:
                namespace.sysctl("tcp_congestion_control", congestion_control)
        yield made


def configure(namespace: Namespace, *, host: str, peer: str) -> None:
    """Gives the link's device its address."""
    _ip("-n", namespace.name, "addr", "add", host, "peer", peer, "dev", DEVICE)
    _ip("-n", namespace.name, "link", "set", DEVICE, "addrgenmode", "none")  # IPv6 stays silent
    _ip("-n", namespace.name, "link", "set", DEVICE, "mtu", "1500", "txqueuelen", "1000", "up")


def _remove_orphans() -> None:
    """What a killed laboratory left behind: its process is in the name."""
    for path in _NAMED.glob(f"{_PREFIX}*-*"):
        owner = path.name.rpartition("-")[2]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            _remove(path.name)


def _remove(name: str) -> None:
    with contextlib.suppress(ConfigError):  # somebody else removed it: gone it is
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> str:
    ran = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise ConfigError(f"ip {' '.join(arguments)}: {ran.stderr.strip()}")
    return ran.stdout


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise ConfigError(f"cannot enter a network namespace: {os.strerror(number)}")
