"""What a service manager hears, over a socket of the test's own, from servers that are real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import pytest

from ipclocker.daemon.sd_notify import SystemdNotifier, for_programs, take_notifier

from ..support.fake_daemon import Fake
from ..support.waiting import DEADLINE, wait_for

OFTEN = "200000"  # microseconds; signs of life come twice in that time


class Listener:
    """A service manager, as far as it listens."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + place[1:] if place.startswith("@") else place)
        self.socket.settimeout(DEADLINE)

    def hear(self) -> list[str]:
        """What is said next, signs of life included."""
        return self.socket.recv(65_536).decode().split("\n")

    def news(self) -> list[str]:
        """What is said next that is no sign of life."""
        while (said := self.hear()) == ["WATCHDOG=1"]:
            pass
        return said

    def says_nothing(self) -> bool:
        """Whether there is nothing left to be heard."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(65_536)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(DEADLINE)
        return False


@pytest.fixture(params=["a name", "an abstract name"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "a name" else f"@ipclocker-test-{os.getpid()}"


@pytest.fixture
def listener(place: str) -> Iterator[Listener]:
    made = Listener(place)
    with made.socket:
        yield made


@pytest.fixture
def any_listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(str(tmp_path / "notify"))
    with made.socket:
        yield made


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Tell it to end; its exit code and stderr."""
    process.send_signal(signal.SIGTERM)
    stderr = process.communicate(timeout=DEADLINE)[1]
    return process.returncode, stderr


def test_from_the_start_to_the_end(fake: Fake, listener: Listener) -> None:
    process = fake.launch("--foreground", NOTIFY_SOCKET=listener.place)
    assert listener.hear() == ["READY=1", "STATUS=listening on a socket"]
    assert fake.ask() == process.pid, "it serves when it says so"
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
        first, when = listener.hear()
        assert first == "RELOADING=1"
        microseconds = int(re.fullmatch(r"MONOTONIC_USEC=(\d+)", when)[1])  # type: ignore[index]
        assert 0 <= time.monotonic_ns() // 1000 - microseconds < DEADLINE * 1e6
        assert listener.hear() == ["READY=1", "STATUS=listening on a socket"]
    assert end(process)[0] == 0
    assert listener.hear() == ["STOPPING=1"]
    assert listener.says_nothing()


def test_what_was_said_to_this_process_is_not_handed_on(fake: Fake, any_listener: Listener) -> None:
    fake.launch("--foreground", NOTIFY_SOCKET=any_listener.place, WATCHDOG_USEC=OFTEN, ANOTHER="1")
    any_listener.news()
    names = (fake.folder / "environment").read_text().split()
    assert "ANOTHER" in names and not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(names)


def test_an_environment_for_programs() -> None:
    private = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
    assert for_programs({**dict.fromkeys(private, "1"), "PATH": "/bin"}) == {"PATH": "/bin"}


def test_a_sign_of_life_from_within_a_long_turn(any_listener: Listener) -> None:
    with closing(SystemdNotifier(any_listener.place, 30.0)) as notifier:
        assert notifier.alive()
        assert any_listener.hear() == ["WATCHDOG=1"]
    with closing(SystemdNotifier(any_listener.place)) as notifier:  # a manager that wants none
        assert not notifier.alive()
        assert any_listener.says_nothing()


def test_a_failed_start_says_why(fake: Fake, any_listener: Listener) -> None:
    fake.tell("refuse", "no\nway")
    process = fake.launch("--foreground", NOTIFY_SOCKET=any_listener.place)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 69
    assert any_listener.hear() == ["STATUS=no\\nway"]
    assert any_listener.says_nothing()


def test_the_background_is_handed_over(fake: Fake, any_listener: Listener) -> None:
    """The launcher, which the manager takes for the service, says who is."""
    process = fake.launch(NOTIFY_SOCKET=any_listener.place, WATCHDOG_USEC=OFTEN)
    process.communicate(timeout=DEADLINE)
    said = [any_listener.news(), any_listener.news()]
    assert ["READY=1", "STATUS=listening on a socket"] in said
    assert ["READY=1", f"MAINPID={fake.pid_file()}"] in said
    assert any_listener.hear() == ["WATCHDOG=1"], "which the server goes on to say"
    os.kill(fake.pid_file(), signal.SIGTERM)
    assert any_listener.news() == ["STOPPING=1"]


# Signs of life


def test_signs_of_life_come_from_the_loop(fake: Fake, any_listener: Listener) -> None:
    fake.launch("--foreground", NOTIFY_SOCKET=any_listener.place, WATCHDOG_USEC=OFTEN)
    assert any_listener.hear()[0] == "READY=1"
    for _ in range(5):
        assert any_listener.hear() == ["WATCHDOG=1"]
    fake.tell("stuck")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(fake.folder / "socket"))
        wait_for((fake.folder / "is stuck").exists, "the loop to be stuck")
        while not any_listener.says_nothing():
            pass
        time.sleep(0.5)
        assert any_listener.says_nothing(), "a loop that is stuck is silent"
        fake.untell("stuck")
        assert client.recv(99)
    assert any_listener.hear() == ["WATCHDOG=1"]


def test_signs_of_life_go_on_after_a_start_anew(fake: Fake, any_listener: Listener) -> None:
    process = fake.launch("--foreground", NOTIFY_SOCKET=any_listener.place, WATCHDOG_USEC=OFTEN)
    any_listener.news()
    process.send_signal(signal.SIGHUP)
    assert [any_listener.news()[0] for _ in range(2)] == ["RELOADING=1", "READY=1"]
    assert any_listener.hear() == any_listener.hear() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "9" * 5000},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_signs_of_life_unless_they_are_wanted(fake: Fake, any_listener: Listener, variables: dict[str, str]) -> None:
    process = fake.launch("--foreground", NOTIFY_SOCKET=any_listener.place, **variables)
    assert any_listener.hear()[0] == "READY=1"
    end(process)
    assert any_listener.hear() == ["STOPPING=1"]


def test_signs_of_life_are_wanted_of_this_process(any_listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", any_listener.place)
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    manager = take_notifier()
    assert "NOTIFY_SOCKET" not in os.environ and take_notifier()._socket is None
    with closing(manager):
        clock = FakeLoop()
        manager.keep_alive(clock)  # type: ignore[arg-type]
        for seconds in (2.0, 4.0, 6.0):
            assert any_listener.hear() == ["WATCHDOG=1"] and any_listener.says_nothing()
            clock.go_on()
            assert clock.now == seconds


class FakeLoop:
    """The one thing that signs of life need of a loop, and a clock that jumps to when it is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, Callable[[], Any]]] = []

    def call_at(self, when: float, call: Callable[[], Any]) -> None:
        self._calls.append((when, call))

    def go_on(self) -> None:
        self.now, call = self._calls.pop()
        call()


def test_a_sign_of_life_that_could_not_be_given_is_tried_again_soon(tmp_path: Path) -> None:
    """A manager that starts anew has no socket for a moment."""
    place = str(tmp_path / "notify")
    clock = FakeLoop()
    with closing(SystemdNotifier(place, 8.0)) as manager:
        manager.keep_alive(clock)  # type: ignore[arg-type]
        clock.go_on()
        assert clock.now == 0.5
        later = Listener(place)
        with later.socket:
            clock.go_on()
            assert later.hear() == ["WATCHDOG=1"]
            clock.go_on()
            assert clock.now == 5.0


@pytest.fixture
def to_the_deaf(tmp_path: Path) -> Iterator[SystemdNotifier]:
    """Notify a manager that does not read, and whose queue is full."""
    deaf = Listener(str(tmp_path / "notify"))
    with deaf.socket, closing(SystemdNotifier(deaf.place, 8.0)) as manager:
        clock = FakeLoop()
        manager.keep_alive(clock)  # type: ignore[arg-type]
        for _ in range(100_000):  # far beyond any queue
            before = clock.now
            clock.go_on()
            if clock.now - before < 1.0:
                break
        else:
            pytest.fail("the queue is never full")
        yield manager


def test_a_manager_that_does_not_read_holds_nobody_up(to_the_deaf: SystemdNotifier) -> None:
    to_the_deaf.stopping()


def test_signals_do_not_prolong_the_wait_for_a_manager_that_does_not_read(to_the_deaf: SystemdNotifier) -> None:
    signals: list[int] = []

    def count(number: int, frame: object) -> None:
        signals.append(number)
        assert len(signals) < 100, "it waits for as long as signals come"

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        to_the_deaf.stopping()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Managers that are none


@pytest.mark.parametrize("place", ["", "relative", "vsock:2:1234", "@"])
def test_a_place_that_is_none(fake: Fake, place: str) -> None:
    process = fake.launch("--foreground", log_file=None, NOTIFY_SOCKET=place, WATCHDOG_USEC=OFTEN)
    fake.server()
    code, stderr = end(process)
    assert code == 0 and "fault" not in stderr and "Traceback" not in stderr


def test_a_manager_that_is_gone(fake: Fake, tmp_path: Path) -> None:
    process = fake.launch("--foreground", log_file=None, NOTIFY_SOCKET=str(tmp_path / "none"), WATCHDOG_USEC=OFTEN)
    assert fake.server() == process.pid
    code, stderr = end(process)
    assert code == 0 and "fault" not in stderr and "Traceback" not in stderr


def test_no_descriptor_is_needed_to_say_something(any_listener: Listener) -> None:
    program = (
        "import resource, sys; from ipclocker.daemon.sd_notify import SystemdNotifier\n"
        "manager = SystemdNotifier(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
        "manager.ready('for\\na line')\n"
    )
    subprocess.run([sys.executable, "-c", program, any_listener.place], timeout=DEADLINE, check=True)
    assert any_listener.hear() == ["READY=1", "STATUS=for\\na line"]


def test_nothing_is_done_without_a_manager() -> None:
    """No socket, no timer, no sign: a server that nobody listens to is the one that it was."""
    program = (
        "import os, ipclocker.daemon.sd_notify as notify\n"
        "notify.socket.socket = None\n"
        "manager = notify.take_notifier()\n"
        "manager.ready('')\n"
        "manager.keep_alive(None)\n"
        "manager.stopping()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=DEADLINE, check=True)
