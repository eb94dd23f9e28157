"""Names looked up beside a real event loop."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from ipclocker.net.loop import Loop
from ipclocker.net.resolver import Resolver

from ..support.waiting import DEADLINE


class Turning:
    """A loop that runs until something is true, and its resolver."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.resolver = Resolver(self.loop)

    def addresses(self, name: str) -> list[str]:
        """Ask for a name in one turn after the other, until it is known."""
        deadline = time.monotonic() + DEADLINE
        found: list[str] = []

        def ask() -> None:
            found[:] = self.resolver.addresses(name)
            if found or time.monotonic() > deadline:
                self.loop.stop()
            else:
                self.loop.call_at(self.loop.now + 0.001, ask)

        self.loop.call_at(0, ask)
        self.loop.run()
        return found


@pytest.fixture
def turning() -> Iterator[Turning]:
    turning = Turning()
    yield turning
    turning.resolver.close()
    turning.loop.close()


def test_a_name_is_known_some_turns_later(turning: Turning) -> None:
    assert turning.resolver.addresses("127.0.0.7") == [], "never at once"
    assert turning.addresses("127.0.0.7") == ["127.0.0.7"]


def test_a_silent_name_server_holds_up_nobody(turning: Turning, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = socket.getaddrinfo, []

    def slow(name: str, *details: object, **more: object) -> object:
        asked.append(name)
        if name == "silent.example":
            time.sleep(0.5)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.8", None, type=socket.SOCK_DGRAM)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    before = time.monotonic()
    for _ in range(100):
        assert turning.resolver.addresses("silent.example") == []
    assert time.monotonic() - before < 0.4, "asking does not wait"
    assert turning.addresses("known.example") == ["127.0.0.8"]
    assert asked == ["silent.example", "known.example"], "a name is looked up once, however often it is asked for"


def test_a_name_that_is_none_is_no_error(turning: Turning) -> None:
    assert turning.resolver.addresses("\udcff" * 300) == []
    assert turning.addresses("127.0.0.9") == ["127.0.0.9"]
