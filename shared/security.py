"""Addresses and transport security: every channel and every port is made here.

Loopback may be plain. Anything wider needs TLS files, or the explicit word that it shall not.
"""

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from .errors import ConfigError

ChannelOptions = list[tuple[str, int | str]]

_PROBE_S = 1.0
"""For each step of finding out why a handshake fails."""

MAX_MESSAGE_BYTES = 64 << 20
"""gRPC's own limit is 4 MiB, less than one raw 12-megapixel picture (36 MB)."""

_MESSAGE_OPTIONS: ChannelOptions = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
SERVER_OPTIONS: ChannelOptions = [
    *_MESSAGE_OPTIONS,
    ("grpc.so_reuseport", 0),  # a second daemon on a taken port must fail, not share it
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.server_handshake_timeout_ms", 20_000),  # whoever connects and says nothing
    ("grpc.max_concurrent_streams", 1024),  # what one connection may have under way; more wait
    # A watcher that vanished without a word holds its stream until somebody asks for it.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]
CHANNEL_OPTIONS: ChannelOptions = [
    *_MESSAGE_OPTIONS,
    # A channel of its own has a connection of its own: a new one is tried beside a stalled one.
    ("grpc.use_local_subchannel_pool", 1),
    # A link that was away must be noticed and retried within about a second of its return.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
]


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port, as in `127.0.0.1:8500` or `[::1]:8500`."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"{text!r} is no address; write HOST:PORT, such as 127.0.0.1:8500")
        return cls(host, int(port))

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Security:
    """How this process speaks to others: TLS files, or plain where that is allowed.

    `certificate` and `key` are PEM files that a server presents; `authority` is the PEM file by
    which a client knows servers, and a server its clients (mutual TLS).
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a TLS certificate and its key come together")

    def bind(self, server: grpc.aio.Server, address: Address) -> Address:
        """Opens a port and returns it (port 0 picks a free one); ConfigError if it cannot."""
        try:
            if self.certificate is not None and self.key is not None:
                authority = _read(self.authority) if self.authority else None
                credentials = grpc.ssl_server_credentials(
                    [(_read(self.key), _read(self.certificate))],
                    root_certificates=authority,
                    require_client_auth=authority is not None,
                )
                port = server.add_secure_port(str(address), credentials)
            else:
                self._allow_plain(address, "listen on")
                port = server.add_insecure_port(str(address))
        except RuntimeError as error:
            why = _why_not(address) or str(error)
            hint = "" if self.certificate is None else " (or the TLS files are no valid pair)"
            raise ConfigError(f"cannot listen on {address}: {why}{hint}") from error
        if port == 0:
            raise ConfigError(f"cannot listen on {address}: is the port taken?")
        return Address(address.host, port)

    def server_context(self, address: Address) -> ssl.SSLContext | None:
        """The TLS of a port that is not gRPC's, None where it is plain; ConfigError if neither."""
        if self.certificate is None:
            self._allow_plain(address, "listen on")
            return None
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # also what ssl raises on files that are no PEM, or no pair
            raise ConfigError(f"cannot use the TLS files on {address}: {error}") from error
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def channel(
        self, address: Address, *, most_received_bytes: int = MAX_MESSAGE_BYTES
    ) -> grpc.aio.Channel:
        """A channel for an event loop; longer messages than that are not received."""
        credentials = self._channel_credentials(address)
        received = ("grpc.max_receive_message_length", most_received_bytes)
        options = [received, *(each for each in CHANNEL_OPTIONS if each[0] != received[0])]
        if credentials is None:
            return grpc.aio.insecure_channel(str(address), options=options)
        return grpc.aio.secure_channel(str(address), credentials, options=options)

    def blocking_channel(self, address: Address) -> grpc.Channel:
        """A channel for threads."""
        credentials = self._channel_credentials(address)
        if credentials is None:
            return grpc.insecure_channel(str(address), options=CHANNEL_OPTIONS)
        return grpc.secure_channel(str(address), credentials, options=CHANNEL_OPTIONS)

    def misfit(self, address: Address) -> str:
        """Why nobody there can be understood, found out by trying; empty if nothing is wrong.

        Blocks for at most some seconds. That nobody is there at all is no misfit.
        """
        # Not the default context: reading the system's authorities takes tens of milliseconds.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.authority is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            try:
                context.load_verify_locations(self.authority)
                if self.certificate is not None:
                    context.load_cert_chain(self.certificate, self.key)
            except OSError as error:  # also what ssl raises on files that are no PEM, or no pair
                return f"the TLS files here cannot be used: {error}"
        context.set_alpn_protocols(["h2"])
        try:
            with socket.create_connection((address.host, address.port), _PROBE_S) as plain:
                return self._shake_hands(plain, context, address)
        except OSError:
            return ""

    def _shake_hands(self, plain: socket.socket, context: ssl.SSLContext, address: Address) -> str:
        try:
            with context.wrap_socket(plain, server_hostname=address.host) as secured:
                if self.authority is None:
                    return f"{address} speaks TLS and this side does not: give --tls-ca here"
                if _speaks(secured):
                    return ""
        except ssl.SSLCertVerificationError as error:
            return f"the certificate of {address} is not trusted: {error.verify_message}"
        except ssl.SSLError as error:
            if self.authority is None:
                # Somebody that speaks TLS may refuse ours; who does not says something else.
                wants = "ALERT" in (error.reason or "")
                return f"{address} speaks TLS: give --tls-ca here" if wants else ""
            if "CERTIFICATE_REQUIRED" not in (error.reason or ""):
                return (
                    f"{address} speaks no TLS and this side does ({error.reason}): "
                    "give --tls-cert and --tls-key there, or leave --tls-ca out here"
                )
        return f"{address} wants a certificate it knows: give --tls-cert and --tls-key here"

    def _channel_credentials(self, address: Address) -> grpc.ChannelCredentials | None:
        if self.authority is None:
            self._allow_plain(address, "connect to")
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.authority),
            private_key=_read(self.key) if self.key else None,
            certificate_chain=_read(self.certificate) if self.certificate else None,
        )

    def _allow_plain(self, address: Address, verb: str) -> None:
        if not (address.loopback or self.insecure):
            raise ConfigError(
                f"will not {verb} {address} without TLS; give --tls-cert and --tls-key "
                "(servers) or --tls-ca (clients), or say --insecure"
            )


def _why_not(address: Address) -> str:
    """What the system says of listening there, which gRPC keeps to itself; empty if nothing."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error


def _speaks(secured: ssl.SSLSocket) -> bool:
    """HTTP/2 servers speak first; one that wants another certificate ends the connection.

    A reset before the handshake's end says nothing: it may come from a proxy whose cloud is down.
    """
    try:
        return bool(secured.recv(1))
    except ConnectionResetError:
        return False
