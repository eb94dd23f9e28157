"""lockerd in the background and in the foreground, from its start to its end."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.processes import children, is_alive
from ..support.site import Site
from ..support.waiting import wait_for


class Background:
    """A lockerd in the background, as its files show it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.pid_file = site.folder / "pid"
        self.log_file = site.folder / "log"
        self.socket = Path(site.environment["IPCLOCKER_PORT"])

    def start(self, *words: str) -> int:
        """Start it; the exit code of what was called."""
        done = self.site.run("lockerd", "--pid-file", self.pid_file, "--log-file", self.log_file, *words)
        assert done.stdout == done.stderr == "", "nothing on the terminal"
        self.site.ends_with(*children(self.monitor()), self.monitor())
        return done.returncode

    def monitor(self) -> int:
        return int(self.pid_file.read_text())

    def server(self, other_than: int = 0) -> int:
        """The process that serves."""
        pids = wait_for(lambda: [pid for pid in children(self.monitor()) if pid != other_than], "a server")
        self.site.ends_with(*pids)
        wait_for(self.site.answers, "an answer")
        return pids[0]

    def log(self) -> str:
        return self.log_file.read_text()


@pytest.fixture
def background(bare_site: Site) -> Iterator[Background]:
    yield Background(bare_site)
    # What is started anew while the rest is being ended has no other parent.
    if (bare_site.folder / "pid").exists():
        monitor = int((bare_site.folder / "pid").read_text())
        bare_site.ends_with(monitor, *children(monitor))


def test_from_start_to_end(background: Background) -> None:
    assert background.start() == 0
    assert background.site.answers(), "it serves when the call returns"
    assert background.site.lockersh("exit 3").returncode == 3
    monitor, server = background.monitor(), background.server()
    assert os.getsid(server) == os.getsid(monitor) != os.getsid(0)
    os.kill(monitor, signal.SIGTERM)
    wait_for(lambda: not is_alive(monitor) and not is_alive(server), "the end")
    assert not background.pid_file.exists() and not background.socket.exists()
    assert "listening on" in background.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_the_server(background: Background, number: signal.Signals) -> None:
    background.start()
    monitor, server = background.monitor(), background.server()
    os.kill(server, number)
    wait_for(lambda: not is_alive(monitor), "the end")
    assert not background.pid_file.exists() and not background.socket.exists()


def test_killed_server_is_started_again(background: Background) -> None:
    background.start()
    server = background.server()
    for _ in range(2):
        os.kill(server, signal.SIGKILL)
        server = background.server(other_than=server)
    assert background.site.lockersh("exit 3").returncode == 3


def test_anew(background: Background) -> None:
    background.start()
    background.site.ask(b"user somebody\nlocks x\nLOCK")
    before = background.site.locks()
    os.kill(background.monitor(), signal.SIGHUP)
    wait_for(lambda: "started again" in background.log(), "the news")
    wait_for(background.site.answers, "an answer")
    assert background.site.locks() == before == {"x": "somebody"}
    assert background.monitor()


def test_taken(background: Background) -> None:
    """The error goes to the terminal and into the exit code, and the first one serves on."""
    background.start()
    done = background.site.run("lockerd", "--log-file", background.log_file)
    assert done.returncode in (64, 69), done
    assert re.fullmatch(r"lockerd: .+\n", done.stderr)
    done = background.site.run("lockerd", "--pid-file", background.pid_file, "--path", background.site.folder / "other")
    assert done.returncode == 64, done
    assert "already running" in done.stderr
    assert background.site.answers()


def test_nothing_is_written_but_to_the_log(background: Background, tmp_path: Path) -> None:
    """Without a log file it is syslog, which need not be there."""
    done = background.site.run("lockerd", "--pid-file", background.pid_file, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    background.server()
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_relative(background: Background) -> None:
    done = background.site.run(
        "lockerd", "--path", "relative", "--pid-file", "pid", "--log-file", "log", cwd=background.site.folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    background.site.environment["IPCLOCKER_PORT"] = str(background.site.folder / "relative")
    server = background.server()
    os.kill(server, signal.SIGKILL)
    background.server(other_than=server)
    assert background.site.lockersh("exit 3").returncode == 3
    assert "listening on" in background.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground(site: Site, number: signal.Signals) -> None:
    assert site.server is not None
    assert "listening on" in site.server.err
    site.server.process.send_signal(signal.SIGHUP)
    site.server.says("started again")
    wait_for(site.answers, "an answer")
    site.server.process.send_signal(number)
    assert site.server.end() == 0
    assert not Path(site.environment["IPCLOCKER_PORT"]).exists()


def test_both_families_of_localhost(bare_site: Site) -> None:
    server = bare_site.start("lockerd", "--nofork", "--port", "0", "--host", "127.0.0.1", "--host", "127.0.0.2")
    server.says("listening on 127.0.0.1:")
    assert len(re.findall(r"127\.0\.0\.[12]:\d+", server.err)) == 2
