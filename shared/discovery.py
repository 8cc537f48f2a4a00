"""Finding a cloud on the local network by DNS-SD (RFC 6763) over multicast DNS (RFC 6762)."""

import ipaddress
import queue
import socket
from dataclasses import dataclass, field

from zeroconf import (  # type: ignore[attr-defined]  # get_all_addresses is not in __all__
    InterfaceChoice,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
    get_all_addresses,
)
from zeroconf.asyncio import AsyncZeroconf

from .deadline import Deadline, monotonic
from .errors import ConfigError, RemoteUnavailable
from .security import Address

SERVICE_TYPE = "_hybridge._tcp.local."


@dataclass
class Advertisement:
    """Tells the local network where a cloud listens, until `close`."""

    address: Address
    name: str
    _zeroconf: AsyncZeroconf | None = field(default=None, init=False)

    async def start(self) -> None:
        ips = _reachable_at(self.address.host)
        interfaces = ips if self.address.loopback else InterfaceChoice.Default
        self._zeroconf = AsyncZeroconf(interfaces=interfaces)
        info = ServiceInfo(
            SERVICE_TYPE,
            f"{self.name}.{SERVICE_TYPE}",
            addresses=[socket.inet_aton(ip) for ip in ips],
            port=self.address.port,
            server=f"{self.name}.local.",
        )
        await (await self._zeroconf.async_register_service(info))

    async def close(self) -> None:
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
            self._zeroconf = None


def _reachable_at(host: str) -> list[str]:
    """The IPv4 addresses under which others reach who listens at a host: 0.0.0.0 is none."""
    ip = socket.gethostbyname(host)
    if not ipaddress.ip_address(ip).is_unspecified:
        return [ip]
    return [own for own in get_all_addresses() if not ipaddress.ip_address(own).is_loopback]


def find_cloud(*, wait_ms: float = 3000.0) -> Address:
    """The first cloud that answers, blocking at most `wait_ms`; RemoteUnavailable if none does."""
    found: queue.SimpleQueue[Address] = queue.SimpleQueue()

    def changed(
        zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            return
        info = zeroconf.get_service_info(service_type, name)
        if info is not None and info.port is not None and info.parsed_addresses():
            found.put(Address(info.parsed_addresses()[0], info.port))

    deadline = Deadline.after_ms(wait_ms, now_s=monotonic())
    try:
        zeroconf = Zeroconf(interfaces=InterfaceChoice.All)
    except OSError as error:
        raise ConfigError(f"multicast DNS cannot be used here ({error}); give --cloud") from error
    try:
        browser = ServiceBrowser(zeroconf, SERVICE_TYPE, handlers=[changed])
        try:
            return found.get(timeout=max(0.0, deadline.left_ms(monotonic()) / 1e3))
        except queue.Empty:
            raise RemoteUnavailable(
                f"no cloud announced itself within {wait_ms:g} ms; give --cloud HOST:PORT"
            ) from None
        finally:
            browser.cancel()
    finally:
        zeroconf.close()
