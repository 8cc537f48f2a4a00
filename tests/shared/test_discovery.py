import asyncio

import pytest

from hybridge.shared import discovery
from hybridge.shared.discovery import Advertisement, find_cloud
from hybridge.shared.errors import RemoteUnavailable
from hybridge.shared.security import Address


async def test_a_cloud_is_found_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    # A type of our own: whatever else is announced here, by other tests too, is not found.
    monkeypatch.setattr(discovery, "SERVICE_TYPE", "_hybridgetest._tcp.local.")
    cloud = Advertisement(Address("127.0.0.1", 4321), "hybridge-test")
    await cloud.start()
    try:
        assert await asyncio.to_thread(find_cloud) == Address("127.0.0.1", 4321)
    finally:
        await cloud.close()
    await cloud.close()  # once more is no fault
    with pytest.raises(RemoteUnavailable, match="within 50 ms; give --cloud"):
        await asyncio.to_thread(find_cloud, wait_ms=50)


def test_who_listens_everywhere_is_found_at_a_real_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "get_all_addresses", lambda: ["127.0.0.1", "192.0.2.7"])
    assert discovery._reachable_at("0.0.0.0") == ["192.0.2.7"]
    assert discovery._reachable_at("127.0.0.1") == ["127.0.0.1"]
    assert discovery._reachable_at("192.0.2.9") == ["192.0.2.9"]


def test_no_time_left_is_no_fault() -> None:
    with pytest.raises(RemoteUnavailable):
        find_cloud(wait_ms=1e-6)
