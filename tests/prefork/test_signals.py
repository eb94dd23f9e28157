"""What signals do to a manager and to its workers, beside the Perl module whose interface this is."""

from __future__ import annotations

import os
import pty
import re
import signal
import sys
import termios
from pathlib import Path

import pytest

from ..support.processes import birth, is_alive, living_children
from ..support.waiting import wait_for
from .servers import PERL_MODULE, server, started

# A shell, as far as it is needed: it has the terminal, and runs a command in its background.
BACKGROUND = """
import os, subprocess, sys
os.setsid()
os.dup2(os.open(sys.argv[1], os.O_RDWR), 2)
subprocess.Popen(sys.argv[2:], preexec_fn=os.setpgrp).wait()
"""
both = pytest.mark.parametrize(
    "kind",
    [
        "python",
        pytest.param("perl", marks=pytest.mark.skipif(not PERL_MODULE, reason="Perl has no FCGI::ProcManager here")),
    ],
)


@both
def test_term_ends_all(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with server(kind, n_processes=3, pid_fname=file) as found:
        workers = found.workers(3)
        assert file.read_text() == f"{found.pid}\n"
        assert found.ask() in workers
        found.send(signal.SIGTERM)
        assert found.end() == 0
        assert not any(map(is_alive, workers))
        assert not file.exists()
        for text in (
            rf"manager \(pid {found.pid}\): initialized\n",
            rf"manager \(pid {found.pid}\): server \(pid {workers[0]}\) started\n",
            rf"manager \(pid {found.pid}\): received signal TERM\n",
            rf"manager \(pid {found.pid}\): sending TERM to PIDs, [\d ]+\n",
            rf"manager \(pid {found.pid}\): server \(pid {workers[0]}\) exited with status 0",
            rf"manager \(pid {found.pid}\): dying: safe exit from signal TERM\n",
        ):
            found.says("FastCGI: " + text)


@both
def test_term_lets_a_request_be_finished_and_ends_the_idle_at_once(kind: str) -> None:
    with server(kind, n_processes=2) as found:
        workers = found.workers(2)
        asked = found.ask_in_background(2.0)
        found.send(signal.SIGTERM)
        wait_for(lambda: sum(map(is_alive, workers)) == 1, "the end of the idle one")
        assert not asked.answer
        assert asked.pid() in workers
        assert found.end() == 0
        found.says(rf"server \(pid {asked.pid()}\): safe exit after SIGTERM")


@both
def test_die_timeout_kills_and_exits_with_1(kind: str) -> None:
    with server(kind, n_processes=2, die_timeout=1) as found:
        workers = found.workers(2)
        asked = found.ask_in_background(1000.0)
        found.send(signal.SIGTERM)
        assert found.end() == 1
        wait_for(lambda: not any(map(is_alive, workers)), "the end of the workers")
        assert asked.pid() == 0
        found.says("wait timeout")


@both
def test_hup_replaces_all_and_lets_requests_be_finished(kind: str) -> None:
    with server(kind, n_processes=2, rolling=False) as found:
        workers = found.workers(2)
        asked = found.ask_in_background(1.0)
        found.send(signal.SIGHUP)
        wait_for(lambda: sum(map(is_alive, workers)) == 1, "the end of the idle one")
        assert found.ask() not in workers
        assert asked.pid() in workers
        wait_for(lambda: not any(map(is_alive, workers)), "the end of the busy one")
        assert len(found.workers(2)) == 2
        found.send(signal.SIGTERM)
        assert found.end() == 0


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_worker_that_is_told_to_stop_or_killed_is_replaced(kind: str, number: signal.Signals) -> None:
    with server(kind, n_processes=2) as found:
        workers = found.workers(2)
        found.send(number, workers[0])
        wait_for(lambda: not is_alive(workers[0]), "the end of the worker")
        assert workers[1] in found.workers(2)
        found.says(rf"server \(pid {workers[0]}\) (exited with status|was killed by SIG)")


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_finishes_its_request_first(kind: str, number: signal.Signals) -> None:
    with server(kind, n_processes=1) as found:
        (worker,) = found.workers(1)
        asked = found.ask_in_background(1.0)
        found.send(number, worker)
        assert asked.pid() == worker
        wait_for(lambda: not is_alive(worker), "the end of the worker")
        found.says(rf"server \(pid {worker}\): safe exit after {number.name}")
        assert found.ask() != worker


@both
def test_starts_are_a_delay_apart(kind: str) -> None:
    with server(kind, n_processes=2, start_delay=1) as found:
        first, second = sorted(map(birth, found.workers(2)))
        assert second - first > 0.9


@both
def test_no_signals_leaves_them_alone(kind: str) -> None:
    with server(kind, n_processes=1, no_signals=True) as found:
        (worker,) = found.workers(1)
        assert found.ask() == worker
        found.send(signal.SIGTERM, worker)
        found.says(rf"server \(pid {worker}\) (exited with status 15|was killed by SIGTERM)")
        found.workers(1)
        found.send(signal.SIGTERM)
        assert found.end() == -signal.SIGTERM


@both
def test_without_processes_this_one_serves(kind: str) -> None:
    with server(kind, n_processes=0) as found:
        wait_for(lambda: Path(found.path).exists(), "the socket")
        assert wait_for(found.ask, "an answer") == found.pid
        assert found.workers() == []
        if kind == "python":  # Perl's calls no handling_init here, and is at times deaf to signals afterwards
            found.send(signal.SIGTERM)
            assert found.end() == 0


@both
def test_names_in_the_process_table(kind: str) -> None:
    with server(kind, n_processes=1) as found:
        (worker,) = found.workers(1)
        for pid, name in ((found.pid, "perl-fcgi-pm"), (worker, "perl-fcgi")):
            assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == name.encode()
            assert Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"


@both
def test_a_worker_whose_manager_has_died_ends_at_the_latest_after_its_request(kind: str) -> None:
    with server(kind, n_processes=1) as found:
        (worker,) = found.workers(1)
        asked = found.ask_in_background(1.0)
        found.process.kill()
        assert asked.pid() == worker
        wait_for(lambda: not is_alive(worker), "the end of the worker")


# Beyond the Perl module


def test_signals_that_the_caller_had_blocked_and_ignored() -> None:
    code = (
        "import os, signal, sys\n"
        "for n in (1, 2, 15, 17, 21, 22): signal.signal(n, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'tests.prefork.example_server', *sys.argv[1:]])\n"
    )
    with started([sys.executable, "-c", code, "SOCKET", "n_processes=2"]) as found:
        workers = found.workers(2)
        found.send(signal.SIGKILL, workers[0])
        wait_for(lambda: not is_alive(workers[0]), "its end")
        assert workers[1] in found.workers(2)
        found.send(signal.SIGTERM)
        assert found.end() == 0


def test_more_workers_than_descriptors_are_allowed() -> None:
    limit = 'ulimit -n 64; exec "$0" "$@"'
    words = [sys.executable, "-m", "tests.prefork.example_server", "SOCKET", "n_processes=60"]
    with started(["sh", "-c", limit.replace("ulimit", "ulimit -S"), *words]) as found:
        workers = found.workers(60)
        allowed = re.search(r"Max open files +(\d+)", Path(f"/proc/{workers[-1]}/limits").read_text())
        assert allowed is not None and allowed[1] == "64"
        found.send(signal.SIGTERM)
        assert found.end() == 0


def test_idle_workers_end_with_their_manager() -> None:
    with server("python", n_processes=3) as found:
        workers = found.workers(3)
        found.process.kill()
        wait_for(lambda: not any(map(is_alive, workers)), "the end of the workers")


def test_a_second_term_hurries_nobody() -> None:
    with server("python", n_processes=1) as found:
        (worker,) = found.workers(1)
        asked = found.ask_in_background(1.5)
        for _ in range(3):
            found.send(signal.SIGTERM)
            found.says("received signal TERM")
        assert asked.pid() == worker
        assert found.end() == 0


def test_interrupted_as_by_the_terminal() -> None:
    """^C reaches manager and workers alike."""
    with server("python", n_processes=2) as found:
        workers = found.workers(2)
        asked = found.ask_in_background(1.0)
        for pid in (*workers, found.pid):
            found.send(signal.SIGINT, pid)
        assert asked.pid() in workers
        assert found.end() == 0
        assert "Traceback" not in found.err


def test_hup_is_rolling() -> None:
    with server("python", n_processes=2) as found:
        workers = found.workers(2)
        asked = found.ask_in_background(3.0)
        found.send(signal.SIGHUP)
        found.says("safe exit after SIGTERM", 1)
        assert len(found.workers(3)) == 3  # the busy one, beside its successor
        assert asked.pid() in workers
        assert not set(workers) & set(found.workers(2))
        ups = [line for line in found.err.splitlines() if "started" in line or "sending" in line]
        assert [("started" in line) for line in ups] == [True, True, True, False, True, False]


def test_a_worker_that_takes_long_to_stop_is_mentioned_and_left_alone() -> None:
    with server("python", n_processes=1, die_timeout=1) as found:
        (worker,) = found.workers(1)
        asked = found.ask_in_background(3.0)
        found.send(signal.SIGHUP)
        found.says(rf"server \(pid {worker}\) was told to stop \d s ago and is still there\n")
        assert asked.pid() == worker


def test_ttin_and_ttou_add_and_take_away() -> None:
    with server("python", n_processes=1) as found:
        first = found.workers(1)
        for number in range(2, 5):
            found.send(signal.SIGTTIN)
            found.workers(number)
        for number in (3, 2, 1, 1, 1):
            found.send(signal.SIGTTOU)
            found.says(f"received signal TTOU, n_processes is {number}")
        assert found.workers(1) == first
        assert found.ask() == first[0]


def test_writing_to_a_terminal_that_stops_its_background_takes_no_worker_away() -> None:
    """Such a terminal sends SIGTTOU to whoever writes to it and neither blocks nor ignores that."""
    leader, terminal = pty.openpty()
    attributes = termios.tcgetattr(terminal)
    attributes[3] |= termios.TOSTOP
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    command = [sys.executable, "-m", "tests.prefork.example_server", "SOCKET", "n_processes=2"]
    try:
        with started([sys.executable, "-c", BACKGROUND, os.ttyname(terminal), *command]) as found:
            manager = wait_for(lambda: living_children(found.pid), "the manager")[0]
            said = b""
            while said.count(b"initialized") < 3:
                said += os.read(leader, 1000)
            os.kill(manager, signal.SIGTERM)
            assert found.end() == 0
            said += os.read(leader, 10_000)
            assert b"TTOU" not in said and b"dying" in said
    finally:
        os.close(leader)
        os.close(terminal)
