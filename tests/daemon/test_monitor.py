"""A server that dies, is told to start again or to end, and its monitor, as real processes."""

from __future__ import annotations

import os
import signal
import time

from ..support.fake_daemon import Fake
from ..support.processes import is_alive
from ..support.waiting import DEADLINE, wait_for


def test_a_server_that_dies_is_replaced(fake: Fake) -> None:
    fake.run()
    first, monitor = fake.ask(), fake.pid_file()
    os.kill(first, signal.SIGSEGV)
    second = fake.server(other_than=first)
    assert fake.pid_file() == monitor
    assert f"the server process {first} died (killed by SIGSEGV); another is started in 0.1 s" in fake.log()
    os.kill(monitor, signal.SIGTERM)
    fake.wait_until_gone()
    assert not is_alive(second)


def test_a_restart_that_fails_is_tried_again(fake: Fake) -> None:
    fake.run()
    first = fake.ask()
    fake.tell("refuse", "port taken")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: fake.log().count("died (exit status 69)") >= 2, "two failed restarts")
    assert "ERROR: port taken" in fake.log()
    fake.untell("refuse")
    assert fake.server(other_than=first)


def test_hang_up_between_two_servers_starts_the_next_at_once(fake: Fake) -> None:
    fake.run()
    first = fake.ask()
    fake.tell("refuse", "port taken")
    os.kill(first, signal.SIGKILL)
    # The fourth pause is long enough for the signal to meet it, and the test would see it.
    wait_for(lambda: fake.log().count("died (exit status 69)") >= 4, "failed restarts")
    fake.untell("refuse")
    os.kill(fake.pid_file(), signal.SIGHUP)
    assert fake.server(other_than=first)


def test_a_guardian_told_to_end_between_two_servers_ends(fake: Fake) -> None:
    fake.run()
    fake.tell("refuse", "port taken")
    os.kill(fake.ask(), signal.SIGKILL)
    wait_for(lambda: fake.log().count("died (exit status 69)") >= 2, "failed restarts")
    os.kill(fake.pid_file(), signal.SIGTERM)
    fake.wait_until_gone()
    assert not (fake.folder / "pid").exists()


def test_hang_up_starts_the_server_anew(fake: Fake) -> None:
    fake.run()
    first, monitor = fake.ask(), fake.pid_file()
    os.kill(monitor, signal.SIGHUP)
    wait_for(lambda: fake.log().count("listening on") == 2, "a second start")
    assert fake.server() == first
    assert fake.pid_file() == monitor


def test_a_start_anew_that_fails_becomes_a_restart(fake: Fake) -> None:
    fake.run()
    first = fake.ask()
    fake.tell("refuse", "port taken")
    os.kill(fake.pid_file(), signal.SIGHUP)
    fake.wait_for_log("died (exit status 69)")
    fake.untell("refuse")
    assert fake.server(other_than=first)


def test_a_server_that_does_not_end_is_killed(fake: Fake) -> None:
    fake.tell("deaf")
    fake.run("--end-within", "0.1")
    os.kill(fake.pid_file(), signal.SIGTERM)
    fake.wait_until_gone()
    assert "did not end within 0.1 s and is killed" in fake.log()
    assert not (fake.folder / "pid").exists()


def test_a_server_outlives_a_killed_guardian(fake: Fake) -> None:
    fake.run()
    server, monitor = fake.ask(), fake.pid_file()
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: not is_alive(monitor), "the end of the monitor")
    assert fake.ask() == server
    os.kill(server, signal.SIGTERM)
    fake.wait_until_gone()


def test_no_signal_is_lost_while_processes_are_being_made(fake: Fake) -> None:
    """The end is asked for at another moment each time, from the first at which the monitor is known."""
    for milliseconds in range(0, 100, 7):
        (fake.folder / "pid").unlink(missing_ok=True)
        process = fake.launch("--end-within", "600")
        monitor = wait_for(lambda p=process: fake.pid_file() not in (0, p.pid) and fake.pid_file(), "a pid")  # type: ignore[misc]
        fake.seen.append(monitor)
        time.sleep(milliseconds / 1000)  # not waiting for anything: the moment is what is varied
        os.kill(monitor, signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
        assert process.returncode in (0, 70)
        wait_for(lambda pid=monitor: not is_alive(pid), "the monitor's end")  # type: ignore[misc]
        assert not (fake.folder / "pid").exists()
        fake.wait_until_gone()


def test_many_hang_ups_and_then_the_end(fake: Fake) -> None:
    fake.run("--end-within", "600")
    monitor = fake.pid_file()
    for _ in range(50):
        os.kill(monitor, signal.SIGHUP)
        time.sleep(0.001)  # so that they are not one
    os.kill(monitor, signal.SIGTERM)
    fake.wait_until_gone()
    assert "died" not in fake.log()
