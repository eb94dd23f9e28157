"""A server that dies, is told to start again or to end, and its monitor, as real processes."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from ..support.fake_daemon import Fake
from ..support.processes import children, execution, is_alive
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


def test_one_that_can_not_use_its_state_is_started_every_few_seconds(fake: Fake) -> None:
    """Somebody puts it right, and then waits for it."""
    fake.run()
    first = fake.ask()
    fake.tell("refuse state", "it was restored from a backup")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: fake.log().count("died (exit status 74)") >= 7, "many failed restarts")
    pauses = [float(pause) for pause in re.findall(r"another is started in (\S+) s", fake.log())]
    assert max(pauses) <= 3 and len(pauses) > 6, "the last one would be 5 s at the least"
    fake.untell("refuse state")
    assert fake.server(other_than=first)


def test_hang_up_between_two_servers_starts_the_next_at_once(fake: Fake) -> None:
    fake.run()
    first = fake.ask()
    fake.tell("refuse", "port taken")
    os.kill(first, signal.SIGKILL)
    # The fourth pause is long enough for the signal to meet it, and the test would see it.
    wait_for(lambda: fake.log().count("died (exit status 69)") >= 4, "failed restarts")
    fake.untell("refuse")
    monitor = fake.pid_file()
    before = execution(monitor)
    os.kill(monitor, signal.SIGHUP)
    assert fake.server(other_than=first)
    assert execution(monitor) != before, "the monitor is what its file is now, and so is the server"
    os.kill(monitor, signal.SIGTERM)
    fake.wait_until_gone()
    assert not (fake.folder / "pid").exists()


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


@pytest.mark.parametrize("problem", ["refuse", "crash", "kill"])
def test_a_start_that_would_fail_leaves_the_server_that_there_is(fake: Fake, problem: str) -> None:
    fake.run()
    first = fake.ask()
    fake.tell(problem, "port taken")
    for _ in range(2):
        os.kill(fake.pid_file(), signal.SIGHUP)
        fake.wait_for_log("can't take over, and version ")
        assert fake.ask() == first
    said = {"refuse": "fake: port taken", "crash": "of the start", "kill": "it ended without a word"}
    assert said[problem] in fake.log() and "died" not in fake.log()
    fake.untell(problem)
    os.kill(fake.pid_file(), signal.SIGHUP)
    wait_for(lambda: fake.log().count("listening on") == 2, "a second start")
    assert fake.ask() == first


def test_a_trial_that_hangs_ends_with_the_server(fake: Fake) -> None:
    fake.run()
    server, monitor = fake.ask(), fake.pid_file()
    fake.tell("hang")
    os.kill(monitor, signal.SIGHUP)
    trial = wait_for(lambda: children(server), "a trial")[0]
    assert fake.ask() == server, "which serves meanwhile"
    os.kill(monitor, signal.SIGTERM)
    fake.wait_until_gone()
    wait_for(lambda: not is_alive(trial), "the end of the trial")
    assert "died" not in fake.log()


def test_what_is_asked_for_during_a_trial_is_done_after_it(fake: Fake) -> None:
    """The file may have been replaced since it was read."""
    fake.run()
    server = fake.ask()
    fake.tell("hang")
    os.kill(server, signal.SIGHUP)
    first = wait_for(lambda: children(server), "a trial")
    wait_for(lambda: first[0] in fake.pids(), "the trial's server")
    os.kill(server, signal.SIGHUP)
    assert fake.ask() == server, "so the signal has come"
    fake.untell("hang")
    fake.tell("refuse", "port taken")
    wait_for(lambda: fake.log().count("can't take over") == 1, "a second trial")
    assert children(server) != first and "started again" not in fake.log()
    assert fake.ask() == server


def test_the_monitor_is_of_the_new_version_too(fake: Fake) -> None:
    fake.run()
    server, monitor = fake.ask(), fake.pid_file()
    before = execution(monitor)
    for count in (2, 3):
        os.kill(monitor, signal.SIGHUP)
        wait_for(lambda count=count: fake.log().count("listening on") == count, "the next start")  # type: ignore[misc]
        assert (fake.ask(), fake.pid_file()) == (server, monitor)
        wait_for(lambda before=before: execution(monitor) != before, "the monitor's start")  # type: ignore[misc]
        before = execution(monitor)
    os.kill(server, signal.SIGKILL)
    second = fake.server(other_than=server)
    wait_for(lambda: children(monitor) == [second], "the end of the trial before the monitor's own start, if it runs")
    assert fake.run()[0] == 64, "it has its pid file still"
    os.kill(monitor, signal.SIGTERM)
    fake.wait_until_gone()
    assert not (fake.folder / "pid").exists()


def test_a_server_that_fails_behind_its_trial_becomes_one_that_has_died(fake: Fake) -> None:
    fake.run()
    first = fake.ask()
    fake.tell("refuse later", "port taken")
    os.kill(fake.pid_file(), signal.SIGHUP)
    fake.wait_for_log("died (exit status 69)")
    fake.untell("refuse later")
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


@pytest.mark.parametrize("mode", [[], ["--foreground"]])
def test_the_end_is_asked_for_at_any_moment_of_a_restart(fake: Fake, mode: list[str]) -> None:
    for milliseconds in range(0, 400, 37):
        process = fake.launch("--end-within", "600", *mode)
        if mode:
            fake.server()
        else:
            process.communicate(timeout=DEADLINE)
        pid = fake.pid_file()
        os.kill(pid, signal.SIGHUP)
        time.sleep(milliseconds / 1000)  # not waiting for anything: the moment is what is varied
        os.kill(pid, signal.SIGTERM)
        if mode:
            assert process.wait(DEADLINE) == 0
        fake.wait_until_gone()
        assert not (fake.folder / "pid").exists() and not (fake.folder / "socket").exists()
    assert "died" not in fake.log() and "fault" not in fake.log()


def test_a_hang_up_while_a_server_is_made_is_done_when_it_serves(fake: Fake) -> None:
    """Its file may have been replaced after it was read."""
    fake.tell("hang")
    process = fake.launch("--foreground")
    wait_for((fake.folder / "pids").exists, "the start")
    process.send_signal(signal.SIGHUP)
    fake.untell("hang")
    wait_for(lambda: fake.log().count("listening on") == 2, "a second start")
    assert fake.server() == process.pid


def test_many_hang_ups_and_then_the_end(fake: Fake) -> None:
    fake.run("--end-within", "600")
    monitor = fake.pid_file()
    for _ in range(50):
        os.kill(monitor, signal.SIGHUP)
        time.sleep(0.001)  # so that they are not one
    os.kill(monitor, signal.SIGTERM)
    fake.wait_until_gone()
    assert "died" not in fake.log()
