"""Who may speak plainly, and real TLS with certificates made here."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hybridge.shared.errors import ConfigError
from hybridge.shared.security import MAX_MESSAGE_BYTES, SERVER_OPTIONS, Address, Security

LOOPBACK = Address("127.0.0.1", 0)
ECHO = "/test.Echo/Echo"


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, folder: Path, name: str) -> "Authority":
        authority = cls(folder, name, ec.generate_private_key(ec.SECP256R1()))
        authority._write(name, authority.key, ca=True)
        return authority

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def issue(self, name: str) -> Security:
        """A certificate and key for 127.0.0.1, and this authority for judging others."""
        key = ec.generate_private_key(ec.SECP256R1())
        (self.folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        certificate = self._write(name, key, ca=False)
        return Security(
            certificate=certificate, key=self.folder / f"{name}.key", authority=self.certificate
        )

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> Path:
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        file = self.folder / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return file


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("pki"), "authority")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("strangers"), "strangers")


class Echo(grpc.GenericRpcHandler):
    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def echo(request: bytes, context: object) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


@asynccontextmanager
async def echoing(security: Security) -> AsyncIterator[Address]:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((Echo(),))
    address = security.bind(server, LOOPBACK)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)


async def ask(security: Security, address: Address, message: bytes = b"hello") -> bytes:
    async with security.channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
        answer: bytes = await call(message, timeout=20)
        return answer


async def check_unreachable(security: Security, address: Address) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(security, address)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_plain_on_loopback() -> None:
    async with echoing(Security()) as address:
        assert address.port > 0
        assert await ask(Security(), address) == b"hello"


async def test_a_picture_of_twelve_megapixels_fits_in_a_message() -> None:
    async with echoing(Security()) as address:
        large = bytes(4000 * 3000 * 3)
        assert len(large) < MAX_MESSAGE_BYTES
        assert await ask(Security(), address, large) == large


async def test_tls(authority: Authority, strangers: Authority) -> None:
    server = replace(authority.issue("server"), authority=None)
    async with echoing(server) as address:
        assert await ask(Security(authority=authority.certificate), address) == b"hello"
        await check_unreachable(Security(authority=strangers.certificate), address)
        await check_unreachable(Security(), address)  # plain


async def test_mutual_tls(authority: Authority, strangers: Authority) -> None:
    async with echoing(authority.issue("server")) as address:
        assert await ask(authority.issue("client"), address) == b"hello"
        await check_unreachable(Security(authority=authority.certificate), address)
        stranger = replace(strangers.issue("client"), authority=authority.certificate)
        await check_unreachable(stranger, address)


async def test_the_blocking_channel_speaks_tls_too(authority: Authority) -> None:
    import asyncio

    server, client = authority.issue("server"), authority.issue("client")

    def blocking(address: Address) -> bytes:
        with client.blocking_channel(address) as channel:
            answer: bytes = channel.unary_unary(ECHO)(b"hello", timeout=20)
            return answer

    async with echoing(server) as address:
        assert await asyncio.to_thread(blocking, address) == b"hello"


OPEN = [Address("0.0.0.0", 0), Address("::", 0), Address("192.0.2.7", 8500), Address("cloud", 1)]


@pytest.mark.parametrize("address", OPEN, ids=str)
async def test_nothing_plain_beyond_loopback(address: Address) -> None:
    with pytest.raises(ConfigError, match=r"will not listen on .* without TLS.*--insecure"):
        Security().bind(grpc.aio.server(), address)
    for connect in (Security().channel, Security().blocking_channel):
        with pytest.raises(ConfigError, match=r"will not connect to .* without TLS"):
            connect(address)


async def test_unless_told_so(authority: Authority) -> None:
    server = grpc.aio.server()
    assert Security(insecure=True).bind(server, Address("0.0.0.0", 0)).port > 0
    await server.stop(None)
    async with Security(insecure=True).channel(Address("192.0.2.7", 8500)):
        pass
    async with Security(authority=authority.certificate).channel(Address("192.0.2.7", 8500)):
        pass


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example.com", False),
     ("127.0.0.1.example.com", False), ("", False)],
)  # fmt: skip
def test_what_loopback_is(host: str, loopback: bool) -> None:
    assert Address(host, 1).loopback is loopback


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8500", Address("127.0.0.1", 8500)),
        ("[::1]:0", Address("::1", 0)),
        ("cloud.example.com:65535", Address("cloud.example.com", 65535)),
    ],
)
def test_addresses_come_back(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:", ":80", "host:http", "host:-1", "host:65536", "[]:80"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address; write HOST:PORT"):
        Address.parse(text)


async def test_a_taken_port() -> None:
    async with echoing(Security()) as address:
        with pytest.raises(ConfigError, match=f"cannot listen on {address}: Address already"):
            Security().bind(grpc.aio.server(options=SERVER_OPTIONS), address)


def test_a_certificate_without_its_key(tmp_path: Path) -> None:
    for half in ({"certificate": tmp_path}, {"key": tmp_path}):
        with pytest.raises(ConfigError, match="come together"):
            Security(**half)


async def test_files_that_are_not_there(tmp_path: Path, authority: Authority) -> None:
    nowhere = tmp_path / "nowhere.pem"
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.pem: No such file"):
        Security(authority=nowhere).channel(LOOPBACK)
    for missing in ("certificate", "key", "authority"):
        with pytest.raises(ConfigError, match="cannot read"):
            replace(authority.issue("server"), **{missing: nowhere}).bind(
                grpc.aio.server(), LOOPBACK
            )


async def test_files_that_hold_no_certificate(tmp_path: Path, authority: Authority) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    good = authority.issue("server")
    for bad in (replace(good, certificate=garbage), replace(good, key=garbage)):
        with pytest.raises(ConfigError, match="TLS files are no valid pair"):
            bad.bind(grpc.aio.server(), LOOPBACK)


async def test_other_ports_follow_the_same_rules(tmp_path: Path, authority: Authority) -> None:
    wide = Address("0.0.0.0", 0)
    assert Security().server_context(LOOPBACK) is None
    assert Security(insecure=True).server_context(wide) is None
    with pytest.raises(ConfigError, match="without TLS"):
        Security().server_context(wide)
    mutual = authority.issue("server").server_context(wide)
    assert mutual is not None
    assert mutual.verify_mode is ssl.CERT_REQUIRED
    single = replace(authority.issue("server"), authority=None).server_context(wide)
    assert single is not None
    assert single.verify_mode is ssl.CERT_NONE
    (tmp_path / "none.pem").write_text("no certificate")
    for file in (tmp_path / "none.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match="TLS files"):
            Security(certificate=file, key=file).server_context(wide)


async def test_why_two_do_not_understand_each_other(
    authority: Authority, strangers: Authority
) -> None:
    server = authority.issue("misfit")
    knowing = Security(authority=authority.certificate)
    stranger = Security(authority=strangers.certificate)

    async def misfit(client: Security, address: Address) -> str:
        return await asyncio.to_thread(client.misfit, address)

    async with echoing(replace(server, authority=None)) as address:
        assert await misfit(knowing, address) == ""
        assert "speaks TLS" in await misfit(Security(), address)
        assert "is not trusted" in await misfit(stranger, address)
    async with echoing(server) as address:
        assert await misfit(authority.issue("client"), address) == ""
        assert "wants a certificate" in await misfit(knowing, address)
    async with echoing(Security()) as address:
        assert await misfit(Security(), address) == ""
        assert "speaks no TLS" in await misfit(knowing, address)
    assert await misfit(knowing, address) == ""  # nobody is there
    (authority.folder / "no.pem").write_text("no certificate")
    for name in ("away.pem", "no.pem"):
        unusable = replace(knowing, authority=authority.folder / name)
        assert "files here cannot be used" in await misfit(unusable, address)


async def test_a_reset_in_the_handshake_says_nothing(authority: Authority) -> None:
    def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        reached.set()

    reached = asyncio.Event()
    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    address = Address(*server.sockets[0].getsockname())
    knowing = Security(authority=authority.certificate)
    assert await asyncio.to_thread(knowing.misfit, address) == ""
    assert reached.is_set()
    server.close()
