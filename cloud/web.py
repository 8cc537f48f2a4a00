"""An HTTP port on the event loop of the cloud."""

import socket

from aiohttp import web

from ..shared.errors import ConfigError
from ..shared.security import Address, Security


class Site:
    """Serves an application on one address, between `start` and `stop`."""

    def __init__(self, app: web.Application, *, grace_ms: float) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=grace_ms / 1e3)

    async def start(self, address: Address, *, security: Security) -> Address:
        """Opens the port and returns it (port 0 picks a free one); ConfigError if it cannot."""
        context = security.server_context(address)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            listener = socket.create_server((address.host, address.port), family=family)
        except OSError as error:
            raise ConfigError(f"cannot listen on {address}: {error.strerror}") from error
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=context).start()
        return Address(address.host, listener.getsockname()[1])

    async def stop(self) -> None:
        """Takes nothing new, lets what was accepted finish within the grace, then ends."""
        await self._runner.cleanup()
