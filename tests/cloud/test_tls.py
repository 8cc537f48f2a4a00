"""Every HTTP port has the TLS of the daemon's files, or is on loopback, or nowhere."""

import asyncio
import dataclasses
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]

from hybridge.cloud.config import CloudConfig
from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address

from ..shared.test_security import Authority
from .conftest import Cloud, run_cloud
from .test_rest import picture

HERE = Address("127.0.0.1", 0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "pki").mkdir()
    return Authority.make(tmp_path / "pki", "authority")


@pytest.fixture
def config(config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, http=HERE, sagemaker=HERE, metrics=HERE)


async def status(cloud: Cloud, site: str, path: str, trusted: ssl.SSLContext) -> int:
    url = f"https://{cloud.server.sites[site]}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=trusted) as response:
        return response.status


async def test_tls_on_every_port(config: CloudConfig, authority: Authority) -> None:
    own = dataclasses.replace(authority.issue("server"), authority=None)
    trusted = ssl.create_default_context(cafile=authority.certificate)
    async with run_cloud(dataclasses.replace(config, security=own)) as cloud:
        assert await status(cloud, "http", "/v2/health/ready", trusted) == 200
        assert await status(cloud, "sagemaker", "/ping", trusted) == 200
        assert await status(cloud, "metrics", "/metrics", trusted) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status(cloud, "http", "/v2", ssl.create_default_context())
        await asyncio.to_thread(check_tritonclient, cloud, str(authority.certificate))


def check_tritonclient(cloud: Cloud, authority: str) -> None:
    client: Any = triton.InferenceServerClient(
        str(cloud.server.sites["http"]), ssl=True, ssl_options={"ca_certs": authority}
    )
    with client:
        assert client.is_server_ready()
        assert client.infer("tiny", [picture(0)]).as_numpy("probabilities").shape == (1, 5)


async def test_mutual_tls_wants_a_certificate(config: CloudConfig, authority: Authority) -> None:
    trusted = ssl.create_default_context(cafile=authority.certificate)
    secured = dataclasses.replace(config, security=authority.issue("server"))
    async with run_cloud(secured) as cloud:
        with pytest.raises(aiohttp.ClientError):
            await status(cloud, "http", "/v2", trusted)
        known = authority.issue("client")
        assert known.certificate is not None
        trusted.load_cert_chain(known.certificate, known.key)
        assert await status(cloud, "http", "/v2", trusted) == 200


@pytest.mark.parametrize("site", ["http", "sagemaker", "metrics"])
async def test_nothing_plain_beyond_loopback(config: CloudConfig, site: str) -> None:
    opened = dataclasses.replace(config, **{site: Address("0.0.0.0", 0)})
    with pytest.raises(ConfigError, match="without TLS"):
        async with run_cloud(opened):
            pass
