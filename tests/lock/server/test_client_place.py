"""The places of clients: what means "here" is kept as the name of this host, and means no other host to another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from ipclocker.lock.model import HolderProcess
from ipclocker.lock.server import client_place
from ipclocker.lock.server.client_place import PlaceNamer, host_of, own_place
from ipclocker.lock.server.holder_monitor import HolderMonitor
from ipclocker.net.loop import Loop
from ipclocker.net.resolver import Resolver
from ipclocker.pid.async_client import AsyncPidClient

from ...support.processes import NO_PID
from ...support.waiting import turn_until

ELSEWHERE = "there@01234567"


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.1.2.3", "::1"])
def test_an_address_that_means_here_is_kept_as_this_host(address: str) -> None:
    assert PlaceNamer().place_of(address) == own_place()
    assert host_of(own_place())


def test_an_own_address_is_kept_as_this_host_and_one_of_another_host_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def is_own(address: str) -> bool:
        asked.append(address)
        return address == "10.0.0.1"

    monkeypatch.setattr(client_place, "is_own_address", is_own)
    monkeypatch.setattr(client_place, "_MOST_KNOWN", 3)
    namer = PlaceNamer()
    for _ in range(2):
        assert namer.place_of("10.0.0.1") == own_place()
        assert namer.place_of("10.0.0.2") == "10.0.0.2" and host_of("10.0.0.2") is None
        assert namer.place_of("fe80::1%eth0") == "fe80::1%eth0" and host_of("fe80::1%eth0") is None
    assert asked == ["10.0.0.1", "10.0.0.2", "fe80::1%eth0"]
    namer.place_of("10.0.0.4")
    namer.place_of("10.0.0.1")
    assert asked[3:] == ["10.0.0.4", "10.0.0.1"]


class Asked:
    """A monitor, whom it has asked, and what it has reported."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone: list[HolderProcess] = []
        self.hosts: list[str] = []
        self.loop = Loop(lambda now: self.monitor.tick(now))
        monkeypatch.setattr(AsyncPidClient, "ask", self._ask)
        monkeypatch.setattr(Resolver, "addresses", self._look_up)
        self.monitor = HolderMonitor(self.loop, 1752, self.gone.append)
        self.known = {"h": ["10.0.0.7"], "there": ["10.0.0.8", "127.0.0.1"]}

    def _ask(self, host: str, *others: object, **more: object) -> None:
        self.hosts.append(host)

    def _look_up(self, name: str) -> list[str]:
        return self.known.get(name, [])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    asked = Asked(monkeypatch)
    yield asked
    asked.monitor.close()
    asked.loop.close()


def test_a_holder_that_was_on_the_host_of_the_server_before_is_looked_for_there(asked: Asked) -> None:
    """Its number means another process here, or none."""
    process = HolderProcess(os.fsencode(os.uname().nodename), NO_PID, None, b"", None, ELSEWHERE)
    asked.monitor.watch(process, asked.loop.now)
    turn_until(asked.loop, lambda: bool(asked.hosts), "a question")
    assert asked.hosts == ["10.0.0.8"] and not asked.gone


def test_a_holder_that_is_on_this_host_is_watched_here(asked: Asked) -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        process = HolderProcess(os.fsencode(os.uname().nodename), child.pid, None, b"", None, own_place())
        asked.monitor.watch(process, asked.loop.now)
        child.kill()
    turn_until(asked.loop, lambda: asked.gone == [process], "the end of the process")
    assert not asked.hosts


def test_a_process_of_another_namespace_here_is_asked_for_over_loopback(asked: Asked) -> None:
    process = HolderProcess(b"h", NO_PID, 1, b"another boot", 7, own_place())
    asked.monitor.watch(process, asked.loop.now)
    turn_until(asked.loop, lambda: bool(asked.hosts), "a question")
    assert set(asked.hosts) == {"127.0.0.1"}
