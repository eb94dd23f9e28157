"""ProcManager as a library: its parameters, what may be overridden, its limits, and that no request is lost."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import ipclocker.prefork
from ipclocker import ProcManager, UsageError

from ..support import PROJECT
from ..support.processes import is_alive, living_children
from ..support.waiting import wait_for
from .servers import Server, server, started


def program(code: str, *words: str) -> list[str]:
    """A Python program that has `listener`, bound to SOCKET, and `serve` of example_server.py."""
    start = (
        "import logging, os, signal, socket, sys, time\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        "from ipclocker import ProcManager\n"
        "from tests.prefork.example_server import serve, work\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[1])\n"
        "listener.listen(1024)\n"
    )
    return [sys.executable, "-c", start + textwrap.dedent(code), "SOCKET", *words]


# Parameters


def test_defaults() -> None:
    manager = ProcManager()
    assert (manager.n_processes(), manager.start_delay(), manager.die_timeout()) == (0, 0, 60)
    assert (manager.role(), manager.pm_parameter("pm_title"), manager.pid_fname()) == ("manager", "perl-fcgi-pm", None)
    assert (manager.no_signals(), manager.rolling()) == (False, True)
    assert (manager.max_requests(), manager.max_size(), manager.request_timeout()) == (0, 0, 0)
    assert manager.sizecheck_num_requests() == 1


def test_parameters_are_set_by_any_way() -> None:
    manager = ProcManager(n_processes=3, die_timeout=None)
    assert manager.die_timeout() is None
    assert manager.n_processes(5) == manager.n_processes() == manager.pm_parameter("n_processes") == 5
    assert manager.pm_parameter("start_delay", "1.5") == manager.start_delay() == 1.5
    assert manager.pm_parameter("rolling", False) is False


def test_pm_manage_changes_what_it_is_given_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = ProcManager(n_processes=3, die_timeout=5, no_signals=True)
    monkeypatch.setattr(manager, "_handle", lambda: 1)
    assert manager.pm_manage(n_processes=0, die_timeout=None) == 1
    assert (manager.n_processes(), manager.die_timeout(), manager.no_signals()) == (0, None, True)


def test_its_messages_are_logged_and_say_which_process_it_is(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    class Own(ProcManager):
        def pm_notify(self, msg: str) -> None:
            super().pm_notify(f"<{msg}>")

    caplog.set_level("INFO", "ipclocker")
    for manager in (ProcManager(), Own()):
        manager.pm_notify("all is well\n")
        manager.pm_warn("all is lost")
    who = f"FastCGI: manager (pid {os.getpid()}): "
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", who + "all is well"),
        ("WARNING", who + "all is lost"),
        ("INFO", who + "<all is well\n>"),
        ("WARNING", who + "<all is lost>"),
    ]
    assert capfd.readouterr().err == ""


def test_limits_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PM_MAX_REQUESTS", "1000")
    monkeypatch.setenv("PM_SIZECHECK_NUM_REQUESTS", "10")
    monkeypatch.setenv("PM_MAX_SIZE", "4096")
    manager = ProcManager(max_requests=7)
    assert (manager.max_requests(), manager.sizecheck_num_requests(), manager.max_size()) == (7, 10, 4096)
    monkeypatch.setenv("PM_MAX_SIZE", "lots")
    with pytest.raises(UsageError, match="PM_MAX_SIZE can't be 'lots'"):
        ProcManager()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_processes", "many"),
        ("n_processes", 2.5),
        ("n_processes", 10**9),
        ("start_delay", -1),
        ("die_timeout", float("nan")),
        ("request_timeout", float("inf")),
        ("max_requests", -1),
        ("max_size", [1]),
        ("role", "boss"),
        ("n_processes", None),
        ("n_processes", True),
        ("start_delay", True),
        ("die_timeout", "soon"),
        ("pid_fname", 5),
        ("pm_title", [1]),
        ("no_signals", "no"),
        ("rolling", 2),
        ("role", None),
        ("sizecheck_num_requests", "x"),
    ],
)
def test_values_that_mean_nothing(key: str, value: Any) -> None:
    calls: list[Callable[..., object]] = [ProcManager, ProcManager().pm_manage]
    for give in calls:
        with pytest.raises(UsageError, match=f"{key} can't be {re.escape(repr(value))}: "):
            give(**{key: value})


def test_a_parameter_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="'processes'"):
        ProcManager(processes=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no parameter 'x'"):
        ProcManager().pm_parameter("x")


def test_it_manages_nobody_unless_it_is_told_how_many() -> None:
    with started(program("serve(ProcManager(), listener)")) as found:
        assert found.ask() == found.pid
        assert found.workers() == []


def test_pm_manage_in_a_thread_is_refused() -> None:
    problems: list[BaseException] = []

    def manage() -> None:
        try:
            ProcManager(n_processes=0).pm_manage()
        except UsageError as problem:
            problems.append(problem)

    thread = threading.Thread(target=manage)
    thread.start()
    thread.join()
    assert "main thread" in str(problems[0])


# Without a manager or a worker


def test_signals_are_counted() -> None:
    manager = ProcManager()
    assert manager.pm_received_signal("TERM") == 0
    assert manager.pm_received_signal("TERM", True) == 1
    manager.sig_handler("TERM")
    manager.sig_sub("TERM")  # is for nobody yet
    assert manager.pm_received_signal() == {"TERM": 2}


def test_pm_exit_and_pm_abort(caplog: pytest.LogCaptureFixture) -> None:
    manager = ProcManager()
    ends: list[tuple[Callable[[], object], int]] = [
        (lambda: manager.pm_exit("done"), 0),
        (lambda: manager.pm_exit("done", 3), 3),
        (lambda: manager.pm_abort("done"), 1),
        (lambda: manager.pm_abort("done", 4), 4),
        (lambda: manager.pm_die("done", 5), 5),
    ]
    for end, status in ends:
        with pytest.raises(SystemExit) as ended:
            end()
        assert ended.value.code == status
    lines = caplog.messages
    assert lines[0] == f"FastCGI: manager (pid {os.getpid()}): done"
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert lines[4] == f"FastCGI: manager (pid {os.getpid()}): dying: done"
    assert manager.pm_wait() is None


def test_pid_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = ProcManager(pid_fname=str(tmp_path / "pid"))
    manager.pm_write_pid_file()
    manager.pm_write_pid_file()
    manager.pm_write_pid_file(str(tmp_path / "other"))
    assert (tmp_path / "pid").read_text() == (tmp_path / "other").read_text() == f"{os.getpid()}\n"
    ProcManager().pm_write_pid_file(str(tmp_path / "pid"))
    assert f"it holds the pid file {tmp_path / 'pid'}" in caplog.messages[-1]
    assert manager.pm_remove_pid_file()
    assert manager.pm_remove_pid_file(str(tmp_path / "other"))
    assert list(tmp_path.iterdir()) == []
    assert not manager.pm_remove_pid_file()
    assert "No such file" in caplog.messages[-1]
    manager.pm_write_pid_file(str(tmp_path / "no" / "folder"))
    assert "cannot be written" in caplog.messages[-1]
    assert not ProcManager().pm_remove_pid_file()


def test_a_pid_file_is_removed_by_its_own_manager_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A second one, here or in another process, was told so when it wanted to write it."""
    path = tmp_path / "pid"
    first, second = (ProcManager(pid_fname=str(path)) for _ in range(2))
    first.pm_write_pid_file()
    second.pm_write_pid_file()
    assert not second.pm_remove_pid_file()
    assert f"unlink: {path}: process {os.getpid()} holds it" in caplog.messages[-1]
    with server("python", n_processes=1, pid_fname=path) as found:
        found.workers(1)
        found.send(signal.SIGTERM)
        assert found.end() == 0
    assert path.read_text() == f"{os.getpid()}\n"
    assert first.pm_remove_pid_file()
    path.write_text("1234\n")  # by a program that holds none
    assert second.pm_remove_pid_file()
    assert not path.exists()


def test_the_functions_are_those_of_one_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(ProcManager):
        pass

    monkeypatch.setattr(ipclocker.prefork, "_manager", None)
    monkeypatch.setattr(ipclocker.prefork, "Default", Own)
    ipclocker.prefork.pm_parameter("n_processes", 4)
    ipclocker.prefork.sig_handler("HUP")
    found = ipclocker.prefork.self_or_default()
    assert isinstance(found, Own)
    assert (found.n_processes(), found.pm_received_signal("HUP")) == (4, 1)
    another = ProcManager()
    assert ipclocker.prefork.self_or_default(another) is another


def test_the_functions_are_those_of_the_module() -> None:
    """As FCGI::ProcManager exports them."""
    names = "manage die wait write_pid_file remove_pid_file pre_dispatch post_dispatch change_process_name"
    names += " received_signal parameter warn notify exit abort"
    expected = {"handling_init", "sig_handler", *(f"pm_{name}" for name in names.split())}
    assert expected <= set(dir(ipclocker.prefork))
    assert all(getattr(ipclocker.prefork, name).__name__ == name for name in expected)
    with pytest.raises(AttributeError, match=r"'ipclocker\.prefork' has no attribute 'pm_manages'"):
        ipclocker.prefork.pm_manages  # type: ignore[attr-defined]  # noqa: B018


# What may be overridden


def test_hooks_are_called_where_they_belong() -> None:
    code = """
        class Own(ProcManager):
            def managing_init(self):
                super().managing_init()
                self.pm_notify(f"managing {os.getpid()}")
            def handling_init(self):
                super().handling_init()
                self.pm_notify(f"handling {os.getpid()}")
            def pm_wait(self):
                pid = super().pm_wait()
                if pid is not None:
                    self.pm_notify(f"waited for {pid}")
                return pid
            def sig_manager(self, name):
                self.pm_notify(f"signal {name}")
                super().sig_manager(name)
            def sig_handler(self, name):
                self.pm_notify(f"noted {name}")
                super().sig_handler(name)
            def pm_notify(self, msg):
                super().pm_notify(f"<{msg}>")
        serve(Own(n_processes=1), listener)
    """
    with started(program(code)) as found:
        found.says("started")
        worker = wait_for(lambda: living_children(found.pid), "a worker")[0]
        assert found.ask() == worker
        found.send(signal.SIGTERM)
        assert found.end() == 0
        for text in (
            rf"manager \(pid {found.pid}\): <managing {found.pid}>",
            rf"manager \(pid {found.pid}\): <initialized>",
            rf"server \(pid {worker}\): <handling {worker}>",
            rf"manager \(pid {found.pid}\): <signal TERM>",
            rf"server \(pid {worker}\): <noted TERM>",
            rf"manager \(pid {found.pid}\): <waited for {worker}>",
        ):
            found.says(text)


def test_a_handler_that_does_not_note_a_signal_ignores_it() -> None:
    code = """
        class Own(ProcManager):
            def sig_handler(self, name):
                if name != "HUP":
                    super().sig_handler(name)
        serve(Own(n_processes=1), listener)
    """
    with started(program(code)) as found:
        (worker,) = found.workers(1)
        for _ in range(3):
            found.send(signal.SIGHUP, worker)
            assert found.ask() == worker
        found.send(signal.SIGTERM, worker)
        wait_for(lambda: not is_alive(worker), "the end")


def test_the_number_may_change_while_it_manages() -> None:
    code = """
        class Own(ProcManager):
            def sig_manager(self, name):
                if name == "HUP":
                    self.n_processes(3 if self.n_processes() == 1 else 0)
                else:
                    super().sig_manager(name)
        serve(Own(n_processes=1), listener)
    """
    with started(program(code)) as found:
        found.workers(1)
        found.send(signal.SIGHUP)
        found.workers(3)
        found.send(signal.SIGHUP)
        assert found.end() == 0
        assert found.workers() == []


def test_functions_in_a_program() -> None:
    code = """
        from ipclocker.prefork import pm_manage, pm_post_dispatch, pm_pre_dispatch
        pm_manage(n_processes=2)
        while True:
            connection, _ = listener.accept()
            pm_pre_dispatch()
            with connection:
                connection.sendall(b"%d\\n" % os.getpid())
            pm_post_dispatch()
    """
    with started(program(code)) as found:
        assert found.ask() in found.workers(2)
        found.send(signal.SIGTERM)
        assert found.end() == 0


def test_what_is_buffered_is_written_once() -> None:
    code = """
        print("once")
        ProcManager(n_processes=3, max_requests=1).pm_manage()
        while True:
            time.sleep(1000)
    """
    process = subprocess.Popen(
        [word.replace("SOCKET", "") for word in program(code)], cwd=PROJECT, stdout=-1, stderr=-1, text=True
    )
    wait_for(lambda: len(living_children(process.pid)) == 3, "the workers")
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert out == "once\n", err


def test_a_worker_has_nothing_of_the_manager_and_of_the_others() -> None:
    with server("python", n_processes=4) as found:
        workers = found.workers(4)
        counts = {len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in workers}
        assert len(counts) == 1  # the last has no more than the first
        kinds = [os.readlink(file) for file in Path(f"/proc/{workers[-1]}/fd").iterdir()]
        assert sum(kind.startswith("socket:") for kind in kinds) == 1
        assert not any("eventpoll" in kind for kind in kinds)


def test_one_that_has_missed_the_signal_is_told_again() -> None:
    """As it may if the signal comes just before it waits."""
    code = """
        class Own(ProcManager):
            def sig_handler(self, name):
                if self.__dict__.setdefault("missed", False):
                    super().sig_handler(name)
                self.missed = True
        serve(Own(n_processes=1, die_timeout=1000), listener)
    """
    with started(program(code)) as found:
        found.workers(1)
        found.send(signal.SIGTERM)
        assert found.end() == 0


# Limits


def test_max_requests() -> None:
    with server("python", n_processes=1, max_requests=3) as found:
        answers = [found.ask() for _ in range(9)]
        assert len(set(answers)) == 3 and answers == sorted(answers, key=answers.index)
        assert 0 not in answers
        found.says(rf"server \(pid {answers[0]}\): safe exit after max_requests \(3\)")


def test_max_size() -> None:
    code = """
        kept = []
        manager = ProcManager(n_processes=1, max_size=200_000)
        manager.pm_manage()
        while True:
            connection, _ = listener.accept()
            manager.pm_pre_dispatch()
            with connection:
                kept.append(b"x" * 60_000_000)
                connection.sendall(b"%d\\n" % os.getpid())
            manager.pm_post_dispatch()
    """
    with started(program(code)) as found:
        answers = [found.ask() for _ in range(8)]
        assert 0 not in answers
        assert 2 <= len(set(answers)) <= 4
        found.says(rf"server \(pid {answers[0]}\): safe exit after max_size \(\d+ of 200000 KB, after \d requests\)")


def test_request_timeout() -> None:
    with server("python", n_processes=2, request_timeout=1) as found:
        workers = found.workers(2)
        for _ in range(3):
            assert found.ask() in workers
        asked = found.ask_in_background(1000.0)
        assert asked.pid() == 0
        found.says(r"server \(pid \d+\) was killed by SIGKILL \(its request had taken longer than request_timeout\)")
        (left,) = set(workers) & set(found.workers(2))
        time.sleep(1.5)  # an idle worker has no time limit
        assert is_alive(left)


def test_request_timeout_of_a_worker_that_hangs_in_c() -> None:
    code = """
        class Own(ProcManager):
            def pm_pre_dispatch(self):
                super().pm_pre_dispatch()
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        serve(Own(n_processes=1, request_timeout=0.5), listener)
    """
    with started(program(code)) as found:
        assert found.ask(1000.0) == 0
        found.says("was killed by SIGKILL")


def test_request_timeout_without_a_manager() -> None:
    with server("python", n_processes=0, request_timeout=1) as found:
        found.says("there is no manager that could end a request")


# Failures


def test_workers_that_fail_at_once_make_no_storm() -> None:
    code = """
        class Own(ProcManager):
            def handling_init(self):
                raise SystemExit(3)
        serve(Own(n_processes=2), listener)
    """
    with started(program(code)) as found:
        found.says(r"exited with status 3; another is started in \d+\.\d s", 6)
        pauses = [float(text) for text in re.findall(r"another is started in ([\d.]+) s", found.err)]
        assert max(pauses) > 0.2
        found.send(signal.SIGTERM)
        assert found.end() == 0


def test_a_fork_that_fails_is_tried_again() -> None:
    code = """
        fork, failures = os.fork, [0, 0, 0, 0]
        def failing():
            if failures:
                failures.pop()
                raise BlockingIOError(11, "planted")
            return fork()
        os.fork = failing
        serve(ProcManager(n_processes=1), listener)
    """
    with started(program(code)) as found:
        assert found.ask() in found.workers(1)
        assert len(re.findall(r"fork: planted; tried again in 0\.\d s", found.err)) == 3
        assert "planted: if this process is killed, what workers have started may live on" in found.err


def test_a_worker_that_cannot_begin_is_no_second_manager() -> None:
    code = """
        from ipclocker.prefork.worker_channel import WorkerEnd
        def fail(self):
            raise OSError(12, "planted")
        WorkerEnd.take = fail
        serve(ProcManager(n_processes=1), listener)
    """
    with started(program(code)) as found:
        found.says("exited with status 1; another is started", 3)
        assert "tried again" not in found.err
        assert all(f"manager (pid {found.pid})" in line for line in found.err.splitlines() if "FastCGI" in line)


def test_a_child_of_the_program_itself_is_no_worker() -> None:
    code = """
        if not os.fork():
            time.sleep(0.3)
            os._exit(9)
        serve(ProcManager(n_processes=1), listener)
    """
    with started(program(code)) as found:
        worker = found.ask()
        wait_for(lambda: living_children(found.pid) == [worker], "the end of the child")
        found.send(signal.SIGTERM)
        assert found.end() == 0
        assert found.err.count("exited with status") == 1


# No request is lost


@contextlib.contextmanager
def crowd(found: Server, clients: int = 3) -> Iterator[list[int]]:
    """Clients that ask as often as they can; who has answered them, 0 if nobody did."""
    answers: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            answers.append(found.ask())

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("gap", [0, 0.002])
def test_no_accepted_connection_is_dropped(gap: float) -> None:
    """Workers are told to stop at any instant, also between an acceptance and pm_pre_dispatch."""
    chance = random.Random(7)
    with server("python", n_processes=3, gap=gap) as found:
        found.workers(3)
        with crowd(found) as answers:
            for _ in range(60):
                worker = chance.choice(wait_for(lambda: living_children(found.pid), "workers"))
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    found.send(chance.choice([signal.SIGTERM, signal.SIGHUP]), worker)
                time.sleep(chance.random() * 0.04)
        assert 0 not in answers
        assert len(set(answers)) > 5
        found.send(signal.SIGTERM)
        assert found.end() == 0


def test_no_request_is_lost_in_renewals() -> None:
    with server("python", n_processes=3) as found:
        before = found.workers(3)
        with crowd(found) as answers:
            for number in range(1, 9):
                found.send(signal.SIGHUP)
                found.says("received signal HUP", number)
                time.sleep(0.05)
        assert 0 not in answers
        wait_for(lambda: not set(before) & set(living_children(found.pid)), "others")
        found.send(signal.SIGTERM)
        assert found.end() == 0
