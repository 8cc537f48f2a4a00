import asyncio
import signal
import sys
import threading

import pytest

from hybridge.shared.daemon import Interrupts, OnListening, serve
from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address

HERE = Address("127.0.0.1", 1)


class Fake:
    """A daemon that says what is done to it."""

    def __init__(self, *, fails: bool = False, hangs: bool = False) -> None:
        self.done: list[str] = []
        self.starting = asyncio.Event()
        self._fails, self._hangs = fails, hangs

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        self.done.append("startup")
        self.starting.set()
        if self._fails:
            raise ConfigError("cannot")
        if self._hangs:
            await asyncio.Event().wait()
        if on_listening is not None:
            on_listening(HERE)

    async def shutdown(self) -> None:
        self.done.append("shutdown")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_is_restored(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    fake, heard = Fake(), []

    def listening(address: Address) -> None:
        heard.append(address)
        signal.raise_signal(number)

    await asyncio.wait_for(serve(fake, on_listening=listening), 30)
    assert heard == [HERE]
    assert fake.done == ["startup", "shutdown"]
    assert {each: signal.getsignal(each) for each in before} == before


async def test_a_signal_during_startup() -> None:
    fake = Fake(hangs=True)
    serving = asyncio.ensure_future(serve(fake))
    await fake.starting.wait()
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(serving, 30)
    assert fake.done == ["startup", "shutdown"]


async def test_a_startup_that_fails_is_shut_down_and_raised() -> None:
    fake = Fake(fails=True)
    with pytest.raises(ConfigError, match="cannot"):
        await serve(fake)
    assert fake.done == ["startup", "shutdown"]


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    async def enter() -> None:
        with Interrupts() as interrupts, pytest.raises(TimeoutError):
            await asyncio.wait_for(interrupts.wait(), 0)

    handler = signal.getsignal(signal.SIGTERM)
    faults: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(enter())
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert faults == []
    assert signal.getsignal(signal.SIGTERM) is handler


STUBBORN = """
import asyncio
from hybridge.shared.daemon import serve
class Stubborn:
    async def startup(self, *, on_listening=None): print("up", flush=True)
    async def shutdown(self):
        print("closing", flush=True)
        await asyncio.Event().wait()
asyncio.run(serve(Stubborn()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_second_signal_ends_the_process(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUBBORN, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(number)
    assert await process.stdout.readline() == b"closing\n"
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 30) == 128 + number
