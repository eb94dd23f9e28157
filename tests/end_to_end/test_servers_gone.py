"""Servers that are not there, go away, or come back with nothing remembered; and the next one on the list."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from ..support.site import Site, Tool
from ..support.waiting import wait_for

QUICKLY = ("--connect-delay", "0.05")


def kill(server: Tool) -> None:
    """No farewell: its locks are forgotten, its socket stays."""
    server.process.kill()
    server.process.wait()


def test_no_server_is_said_at_once_and_tried_again(bare_site: Site) -> None:
    tool = bare_site.start_lockersh("true")  # with the time that is usual
    tool.says("trying again for 90 s")
    assert "no lock server answers" in tool.err
    assert bare_site.environment["IPCLOCKER_PORT"] in tool.err
    tool.process.terminate()
    assert tool.end() == -signal.SIGTERM


@pytest.mark.parametrize("tries", [1, 2, 4])
def test_tries(bare_site: Site, tries: int) -> None:
    done = bare_site.lockersh("--connect-tries", str(tries), *QUICKLY, "true")
    assert done.returncode == 69
    assert done.stderr.count("trying again") == tries - 1
    assert len(done.stderr.splitlines()) == tries


def test_tries_do_not_outlast_the_wait(bare_site: Site) -> None:
    begin = time.monotonic()
    assert bare_site.lockersh("--timeout", "1", "true").returncode == 69
    assert time.monotonic() - begin < 15


def test_a_server_that_comes_late(bare_site: Site) -> None:
    begin = time.monotonic()
    tool = bare_site.start_lockersh("exit 3")
    tool.says("trying again")
    bare_site.serve()
    assert tool.end() == 3
    assert time.monotonic() - begin < 25, "not after the delay of 30 s"


def test_killed_while_the_command_runs(bare_site: Site) -> None:
    server = bare_site.serve()
    tool = bare_site.start_lockersh(
        "--release-tries", "0.3", f"while [ ! -e {bare_site.folder}/go ]; do sleep 0.02; done; exit 7"
    )
    wait_for(lambda: bare_site.locks(), "the lock")
    kill(server)
    (bare_site.folder / "go").touch()
    assert tool.end() == 7
    assert "lock x could not be given back in 0.3 s" in tool.err


def test_stopped_while_the_command_runs(site: Site) -> None:
    """A server that has stopped is connected to, and silent."""
    tool = site.start_lockersh(
        "--release-tries",
        "0.5",
        "kill -STOP $SERVER; exit 8",
        env={**site.environment, "SERVER": str(site.server and site.server.pid)},
    )
    assert tool.end() == 8
    assert site.server is not None
    os.kill(site.server.pid, signal.SIGCONT)
    assert "lock x could not be given back in 0.5 s" in tool.err


def test_restarted_while_the_command_runs(bare_site: Site) -> None:
    server = bare_site.serve()
    tool = bare_site.start_lockersh(f"while [ ! -e {bare_site.folder}/go ]; do sleep 0.02; done; exit 7")
    wait_for(lambda: bare_site.locks(), "the lock")
    kill(server)
    bare_site.serve()
    tool.says("lock x was lost while the command runs")
    assert tool.process.poll() is None
    (bare_site.folder / "go").touch()
    assert tool.end() == 7
    assert tool.err.count("lost") == 1


def test_gone_for_a_while_as_the_command_ends(bare_site: Site) -> None:
    server = bare_site.serve()
    tool = bare_site.start_lockersh("--release-tries", "20", "sleep 1000")
    wait_for(lambda: bare_site.locks(), "the lock")
    kill(server)
    tool.process.terminate()
    bare_site.serve()
    assert tool.end() == -signal.SIGTERM
    assert "could not" not in tool.err


def test_restarted_while_they_wait(bare_site: Site) -> None:
    """They queue again, and each gets its turn."""
    server = bare_site.serve()
    holder = bare_site.hold()
    tools = [bare_site.start_lockersh("exit 5") for _ in range(3)]
    for tool in tools:
        tool.says("waiting for lock x")
    kill(server)
    bare_site.serve()
    assert [tool.end() for tool in tools] == [5, 5, 5]
    assert holder.process.poll() is None


def test_the_hold_is_over_before_the_command(site: Site) -> None:
    tool = site.start_lockersh("--hold-timeout", "0.2", "sleep 0.7; exit 6")
    assert site.lockersh("true").returncode == 0, "the server takes it away"
    assert tool.end() == 6
    assert "lock x was lost while the command runs: its hold time was over" in tool.err
    assert tool.err.count("lost") == 1


def test_broken_by_somebody(site: Site) -> None:
    tool = site.hold()
    site.free("x")
    tool.says("lock x was lost while the command runs: it was broken")
    assert site.lockersh("true").returncode == 0
    tool.process.terminate()
    assert tool.end() == -signal.SIGTERM
    assert "Traceback" not in tool.err


def unused_port() -> socket.socket:
    """A port that nobody listens on for as long as the socket is open: bound, and no more."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def test_the_next_host_of_the_list(bare_site: Site) -> None:
    bare_site.serve_tcp("127.0.0.2")
    environment = {**bare_site.environment, "IPCLOCKER_HOST": "127.0.0.3:127.0.0.2"}
    assert bare_site.lockersh("exit 3", env=environment).returncode == 3
    assert bare_site.lockersh("--dhost", "127.0.0.4:127.0.0.3:127.0.0.2", "exit 4").returncode == 4
    done = bare_site.lockersh("--dhost", "127.0.0.4:127.0.0.3", "--connect-tries", "1", "true")
    assert done.returncode == 69
    assert "127.0.0.4:" in done.stderr and "127.0.0.3:" in done.stderr


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6 loopback address")
def test_ipv6_in_brackets(bare_site: Site) -> None:
    bare_site.serve_tcp("::1")
    assert bare_site.lockersh("--dhost", "127.0.0.9:[::1]", "exit 3").returncode == 3
    assert bare_site.lockersh("--dhost", "[::1]", "exit 4").returncode == 4
    assert bare_site.locks() == {}


def test_path_goes_before_port_and_host(site: Site) -> None:
    socket_name = site.environment["IPCLOCKER_PORT"]
    environment = {**site.environment, "IPCLOCKER_PORT": "1", "IPCLOCKER_HOST": "127.0.0.9"}
    assert site.lockersh("--path", socket_name, "exit 3", env=environment).returncode == 3
    assert site.lockersh("--port", socket_name, "exit 4", env=environment).returncode == 4
    with unused_port() as sock:
        port = str(sock.getsockname()[1])
        done = site.lockersh("--dhost", "127.0.0.1", "--port", port, "--connect-tries", "1", "true")
    assert (done.returncode, port in done.stderr) == (69, True)


def test_stderr_that_nobody_reads(bare_site: Site) -> None:
    """What can't be said does not end what is to be done."""
    server = bare_site.serve()
    reader, writer = os.pipe()
    words = [
        bare_site.file,
        "lockersh",
        "--lock",
        "x",
        "--verbose",
        "--debug",
        f"while [ ! -e {bare_site.folder}/go ]; do sleep 0.02; done; exit 7",
    ]
    os.close(reader)
    import subprocess

    process = subprocess.Popen(words, stderr=writer, env=bare_site.environment)
    os.close(writer)
    wait_for(lambda: bare_site.locks(), "the lock")
    kill(server)
    bare_site.serve()
    (bare_site.folder / "go").touch()
    assert process.wait(30) == 7
