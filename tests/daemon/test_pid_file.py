"""The pid file, alone and of real servers."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from ipclocker.daemon.pid_file import PidFile
from ipclocker.errors import UsageError

from ..support.fake_daemon import Fake
from ..support.processes import is_alive
from ..support.waiting import DEADLINE, wait_for


def test_written_at_once_and_removed(tmp_path: Path) -> None:
    file = PidFile(str(tmp_path / "pid"))
    file.acquire()
    assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_no_path_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (PidFile(None), PidFile(None)):  # no second one is refused
        file.acquire()
        file.write()
        assert list(tmp_path.iterdir()) == []


def test_taken(tmp_path: Path) -> None:
    first, second = PidFile(str(tmp_path / "pid")), PidFile(str(tmp_path / "pid"))
    first.acquire()
    with pytest.raises(UsageError, match=f"already running as process {os.getpid()}: "):
        second.acquire()
    second.remove()
    assert (tmp_path / "pid").exists()
    first.remove()
    second.acquire()
    second.remove()


def test_relative_name_means_the_folder_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = PidFile("pid")
    file.acquire()
    monkeypatch.chdir("/")
    file.write()
    assert (tmp_path / "pid").exists()
    file.remove()
    assert not (tmp_path / "pid").exists()


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "pid")  # to nothing yet
    for _ in range(2):
        file = PidFile(str(tmp_path / "link"))
        file.acquire()
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
        file.close_in_parent()


def test_nothing_but_a_regular_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(UsageError, match="cannot be written"):
            PidFile(str(tmp_path / name)).acquire()
    assert (tmp_path / "fifo").is_fifo()
    assert len(list(tmp_path.iterdir())) == 1


def test_the_lock_is_not_passed_to_other_programs(tmp_path: Path) -> None:
    file = PidFile(str(tmp_path / "pid"))
    file.acquire()
    with subprocess.Popen(["cat"], close_fds=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(b"ready\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"ready\n"
        file.close_in_parent()
        second = PidFile(str(tmp_path / "pid"))
        second.acquire()
        second.remove()


@pytest.mark.parametrize("mode", [[], ["--foreground"]])
def test_a_second_server_with_the_same_pid_file_is_refused(fake: Fake, mode: list[str]) -> None:
    fake.run()
    monitor = fake.pid_file()
    code, stderr = fake.run(*mode)
    assert code == 64
    file = fake.folder / "pid"
    assert stderr == f"fake: already running as process {monitor}: it holds the pid file {file}\n"
    assert fake.pid_file() == monitor
    assert fake.ask() != 0


def test_of_many_servers_with_one_pid_file_one_is_started(fake: Fake) -> None:
    processes = [fake.launch() for _ in range(8)]
    codes = []
    for process in processes:
        _, stderr = process.communicate(timeout=DEADLINE)
        codes.append(process.returncode)
        assert process.returncode == 0 or "already running as process " in stderr
    assert sorted(codes) == [0, *[64] * 7]
    assert len(fake.pids()) == 2


def test_a_stale_pid_file_is_taken_over(fake: Fake) -> None:
    (fake.folder / "pid").write_text(f"{os.getpid()}\n")  # a number that was given to another process
    fake.run()
    assert is_alive(fake.pid_file())
    assert fake.pid_file() != os.getpid()


def test_the_pid_file_of_a_killed_guardian_is_stale(fake: Fake) -> None:
    fake.run()
    monitor, server = fake.pid_file(), fake.ask()
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: not is_alive(monitor), "the end of the monitor")
    with (fake.folder / "pid").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else BlockingIOError: the server holds it
    os.kill(server, signal.SIGTERM)


def test_a_pid_file_that_is_somebody_elses_by_now_is_left_alone(fake: Fake) -> None:
    fake.run()
    monitor = fake.pid_file()
    (fake.folder / "pid").unlink()
    (fake.folder / "pid").write_text("1234567\n")
    os.kill(monitor, signal.SIGTERM)
    fake.wait_until_gone()
    assert fake.pid_file() == 1234567


@pytest.mark.parametrize("mode", [[], ["--foreground"]])
def test_unwritable_pid_file(fake: Fake, mode: list[str]) -> None:
    code, stderr = fake.run("--pid-file", "missing/pid", *mode)
    assert code == 64
    path = fake.folder / "missing" / "pid"
    reason = "No such file or directory"
    assert stderr == f"fake: the pid file {path} cannot be written ({reason}): name another with --pid-file\n"
    assert fake.pids() == []
