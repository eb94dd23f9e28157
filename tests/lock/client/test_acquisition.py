"""An acquisition against the lock service in memory: every step of every exchange may be the one that breaks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipclocker.errors import ServerRefused, ServerUnavailable
from ipclocker.lock.client import acquisition as acquisition_module
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.connection import READ, WRITE, ConnectionLost, DeadlineExceeded, ServerConnection
from ipclocker.lock.client.keepalive import KeepAlive
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.wire.replies import Answer, Waiting
from ipclocker.net.address import Address

from ...support.keepalive import is_settled
from ...support.memory import MemoryNetwork, MemoryPeer, MemoryServer


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def waiting(self, name: str, holder: str) -> None:
        self.heard.append(f"waiting for {name}: {holder}")

    def obtained(self) -> None:
        self.heard.append("obtained")

    def broke(self, holder: str) -> None:
        self.heard.append(f"broke {holder}")

    def retry(self, reason: str, pause: float) -> None:
        self.heard.append("retry")


class Scene:
    """A server, the network to it, and acquisitions over that network."""

    def __init__(self, break_at: int = -1, after: bool = False) -> None:
        self.server = MemoryServer()
        self.network = MemoryNetwork(self.server, break_at, after)
        self.ear = Ear()

    def acquisition(self, **parameters: Any) -> LockAcquisition:
        given: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "lock": "x", "connect_delay": 0.0, **parameters}
        return LockAcquisition(LockSettings(**given), self.ear, self.network.wait)

    def holder(self, name: str = "x") -> MemoryPeer:
        """Somebody else who holds the lock."""
        peer = self.server.connect()
        assert peer.ask(f"user other; locks {name}; LOCK")[1] == "locked 1"
        return peer

    def is_free(self, name: str = "x") -> bool:
        """Nobody holds it, and nobody stands in its queue."""
        probe = self.server.connect()
        answer = probe.ask(f"user probe; locks {name}; LOCK; UNLOCK")
        return answer[1] == "locked 1" and answer[-4:] == ["owner ", "locked 0", "", ""]


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every link goes to the network of the scene that was made last; nobody waits for real."""
    with monkeypatch.context() as patch:
        patch.setattr(acquisition_module, "wait_ready", lambda *_: True)
        original = MemoryNetwork.__init__

        def remember(self: MemoryNetwork, *args: Any, **more: Any) -> None:
            original(self, *args, **more)
            patch.setattr(ServerConnection, "connecting", self.connecting)

        patch.setattr(MemoryNetwork, "__init__", remember)
        yield


def test_a_free_lock_is_held_with_its_token_and_given_back() -> None:
    scene = Scene()
    acquisition = scene.acquisition(user="me", timeout=0)
    assert acquisition.acquire(True, inf)
    assert acquisition.held is not None and (acquisition.held.name, acquisition.held.until) == (b"x", inf)
    assert acquisition.held.token == scene.server.service.table.held[b"x"].token
    assert scene.server.held() == {b"x": b"me"}
    assert acquisition.release()
    assert scene.is_free() and scene.ear.heard == []


def test_a_busy_lock_is_not_waited_for_if_it_is_not_to_be() -> None:
    scene = Scene()
    holder = scene.holder()
    acquisition = scene.acquisition()
    assert not acquisition.acquire(False, inf)
    assert acquisition.holder == "other" and acquisition.held is None
    holder.say("UNLOCK")
    assert scene.is_free()


def test_a_wait_ends_with_the_grant_which_is_confirmed() -> None:
    scene = Scene()
    holder = scene.holder()
    scene.network.while_waiting = lambda: holder.say("UNLOCK")
    acquisition = scene.acquisition(user="me")
    assert acquisition.acquire(True, inf)
    assert scene.ear.heard == ["waiting for x: other", "obtained"]
    scene.server.pass_time(60)
    assert scene.server.held() == {b"x": b"me"}
    assert acquisition.release() and scene.is_free()


def test_a_wait_that_is_over_is_given_back() -> None:
    scene = Scene()
    holder = scene.holder()
    acquisition = scene.acquisition()
    assert not acquisition.acquire(True, inf)  # this network's wait ends at once if there is nothing to come
    holder.say("UNLOCK")
    assert scene.is_free()


def test_a_grant_that_crosses_the_end_of_the_wait_is_given_back() -> None:
    scene = Scene()
    holder = scene.holder()
    in_time = scene.network.wait

    def too_late(sock: object, events: int, deadline: float) -> bool:
        if in_time(sock, events, deadline):
            return True
        holder.say("UNLOCK")  # the grant is on its way at this instant
        return False

    scene.network.wait = too_late  # type: ignore[method-assign]
    acquisition = scene.acquisition()
    assert not acquisition.acquire(True, inf)
    assert scene.is_free()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_while_waiting_gives_the_request_back(error: type[BaseException]) -> None:
    scene = Scene()
    holder = scene.holder()

    def interrupt() -> None:
        scene.network.while_waiting = lambda: None
        holder.say("UNLOCK")
        raise error

    scene.network.while_waiting = interrupt
    acquisition = scene.acquisition()
    with pytest.raises(error):
        acquisition.acquire(True, inf)
    assert acquisition.held is None and acquisition.connector.connection is None
    assert scene.is_free()


def test_a_grant_that_was_taken_back_meanwhile_is_asked_for_again() -> None:
    """The process was stopped between the grant and its confirmation, for longer than the server waits."""
    scene = Scene()
    holder = scene.holder()
    stops = [20.0]

    def stop() -> None:
        holder.say("UNLOCK")
        if stops:
            scene.server.pass_time(stops.pop())

    scene.network.while_waiting = stop
    acquisition = scene.acquisition(user="me")
    assert acquisition.acquire(True, inf)
    assert acquisition.held is not None
    assert acquisition.held.token == scene.server.service.table.held[b"x"].token
    scene.server.pass_time(60)
    assert scene.server.held() == {b"x": b"me"}


def test_a_lock_that_was_lost_is_not_given_back_to_the_dismay_of_its_new_holder() -> None:
    scene = Scene()
    acquisition = scene.acquisition()
    assert acquisition.acquire(True, inf)
    scene.server.connect().say("locks x; BREAK_LOCK")
    scene.holder()
    assert not stands(acquisition)
    again = scene.acquisition(user="second", lock="y")
    assert again.acquire(True, inf)
    scene.server.connect().say("locks y; BREAK_LOCK")
    scene.holder("y")
    assert not again.release()
    assert scene.server.held() == {b"x": b"other", b"y": b"other"}


def test_the_wait_goes_on_after_it_was_taken_off_the_queue() -> None:
    scene = Scene()
    holder = scene.holder()
    acquisition = scene.acquisition(user="me")
    acts = iter(["user me; locks x; UNLOCK"])

    def act() -> None:
        words = next(acts, None)
        if words is None:
            holder.say("UNLOCK")
        else:
            scene.server.connect().say(words)

    scene.network.while_waiting = act
    assert acquisition.acquire(True, inf)
    assert scene.server.held() == {b"x": b"me"}


def test_an_error_of_the_server_is_raised() -> None:
    scene = Scene()
    acquisition = scene.acquisition(user="u" * 70_000)
    with pytest.raises(ServerRefused) as refused:
        acquisition.acquire(True, inf)
    assert refused.value.word == "line_too_long"
    assert scene.server.held() == {}


# Whatever breaks


def stands(acquisition: LockAcquisition) -> bool:
    """Whether the server, asked over a new connection, still knows what the acquisition holds."""
    acquisition.connector.close()
    keepalive = KeepAlive(acquisition.connector, acquisition.grants)
    while keepalive.loss is None and not is_settled(keepalive):
        keepalive.step(inf)
    return keepalive.loss is None


def whole_life(scene: Scene, busy: bool, hold: float) -> LockAcquisition:
    """Obtain the lock, with or without a wait, ask whether it stands, and give it back."""
    holder = scene.holder() if busy else None
    if holder is not None:
        scene.network.while_waiting = lambda: holder.say("UNLOCK")
    acquisition = scene.acquisition(user="me", timeout=hold)
    assert acquisition.acquire(True, inf)
    assert acquisition.held is not None
    assert scene.server.held() == {b"x": b"me"}
    assert acquisition.held.token == scene.server.service.table.held[b"x"].token
    assert stands(acquisition)
    assert acquisition.release()
    acquisition.connector.close()
    return acquisition


@pytest.mark.parametrize("hold", [0.0, 600.0])
@pytest.mark.parametrize("busy", [False, True])
def test_a_connection_that_breaks_at_any_step_does_no_harm(busy: bool, hold: float) -> None:
    unbroken = Scene()
    whole_life(unbroken, busy, hold)
    assert unbroken.network.steps >= 4
    for step in range(unbroken.network.steps):
        for after in (False, True):
            scene = Scene(step, after)
            whole_life(scene, busy, hold)
            assert scene.network.steps >= step
            assert scene.is_free(), f"the lock was left behind (step {step}, {after})"
            assert not any(sock.open for sock in scene.network.links)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 12), st.booleans(), st.sampled_from(["wait", "try"]), st.integers(0, 4))
def test_a_claim_that_gives_up_anywhere_leaves_nothing_behind(step: int, after: bool, how: str, turns: int) -> None:
    scene = Scene(step, after)
    holder = scene.holder()
    left = [turns]

    def wait_a_little() -> None:
        left[0] -= 1
        if left[0] == 0:
            holder.say("UNLOCK")

    scene.network.while_waiting = wait_a_little
    acquisition = scene.acquisition(user="me")
    got = acquisition.acquire(how == "wait", inf)
    assert got == (acquisition.held is not None)
    if got:
        assert acquisition.release()
    else:
        assert scene.server.held().get(b"x") != b"me"
    holder.say("UNLOCK")
    assert scene.is_free()


def test_a_server_that_is_gone_is_tried_as_often_as_it_was_said() -> None:
    scene = Scene()
    scene.network.up = False
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:1"):
        scene.acquisition(connect_tries=4).acquire(True, inf)
    assert scene.ear.heard == ["retry"] * 3


def test_a_release_that_reaches_nobody_says_so() -> None:
    scene = Scene()
    acquisition = scene.acquisition()
    assert acquisition.acquire(True, inf)
    scene.network.up = False
    assert acquisition.connector.connection is not None
    acquisition.connector.close()
    with pytest.raises(ServerUnavailable):
        acquisition.release(within=0.05)
    assert acquisition.held is None


# The link


def make_link() -> tuple[ServerConnection, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ServerConnection(ours, Address(socket.AF_UNIX, "")), theirs


def test_a_link_says_only_what_the_server_does_not_know_yet() -> None:
    connection, server = make_link()
    with server:
        connection.send_request(b"LOCK", user=b"u", locks=(b"a", b"b"), timeout=5.0)
        assert server.recv(999) == b"user u\nlocks a b\ntimeout 5\nLOCK\n"
        connection.send_request(b"LOCK", user=b"u", locks=(b"a", b"b"), timeout=6.0)
        assert server.recv(999) == b"timeout 6\nLOCK\n"
        connection.set_by_server("locks", (b"b",))
        connection.send_request(b"UNLOCK", user=b"u", locks=(b"b",))
        assert server.recv(999) == b"UNLOCK\n"
        connection.close()


def test_a_link_reads_replies_one_by_one_and_keeps_the_rest() -> None:
    connection, server = make_link()
    with server:
        server.sendall(b"print_waiting h\nowner o\nlocked 1\nlockname n\n\n\nowner \nlock")
        assert connection.reply() == Waiting(b"h")
        assert connection.reply() == Answer(b"o", True, b"n")
        with pytest.raises(DeadlineExceeded):
            connection.reply(0.0)
        server.sendall(b"ed 0\n\n\n")
        assert connection.answer() == Answer()
        connection.close()


@pytest.mark.parametrize("last_words", [b"", b"x" * 70_000])
def test_a_link_to_a_server_that_goes_or_talks_nonsense_is_lost(last_words: bytes) -> None:
    connection, server = make_link()
    server.setblocking(False)
    if last_words:
        server.send(last_words)
    server.close()
    with pytest.raises(ConnectionLost):
        connection.reply()
    connection.close()


def test_a_long_request_waits_for_a_server_that_reads_slowly() -> None:
    connection, server = make_link()
    got = []

    def read_then(sock: Any, events: int, deadline: float) -> bool:
        if events == WRITE:
            got.append(server.recv(1 << 20))
        return events in (READ, WRITE)

    connection._wait = read_then
    with server:
        long = b"x" * 3_000_000
        connection.send(long)
        server.setblocking(False)
        while sum(map(len, got)) < len(long):
            got.append(server.recv(1 << 20))
        assert b"".join(got) == long
        connection.close()
