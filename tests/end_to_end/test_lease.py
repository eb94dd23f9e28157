"""A lock that is lost while its command runs: the command is out before anybody else is in."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from ..support.fake_servers import ClassicServer, Proxy
from ..support.processes import command_line, is_alive, living_children, processes_with, state
from ..support.site import Node, Site, Tool, new_nodes, new_site, nodes_can_be_made
from ..support.waiting import wait_for

WORKER = Path(__file__).with_name("worker.py")


class Work:
    """What workers have written down, in the site's folder."""

    def __init__(self, site: Site, *names: str) -> None:
        self.paths = [site.folder / name for name in names]
        for path in self.paths:
            wait_for(lambda path=path: path.exists() and path.read_text(), f"{path.name} to work")  # type: ignore[misc]

    @property
    def began(self) -> float:
        """When the first of them began (monotonic)."""
        return min(float(path.read_text().split()[0]) for path in self.paths)

    @property
    def ended(self) -> float:
        """When the last of them worked for the last time."""
        return max(float(path.read_text().splitlines()[-2].split()[0]) for path in self.paths)

    @property
    def pids(self) -> list[int]:
        return [int(path.read_text().split()[1]) for path in self.paths]

    def is_over(self) -> bool:
        return not any(map(is_alive, self.pids))


def start_worker(site: Site, name: str, *how: str, options: tuple[str, ...] = ("--lease", "3"), **more: object) -> Tool:
    words = (sys.executable, str(WORKER), str(site.folder / name), *how)
    return site.start_lockersh(*options, *words, **more)  # type: ignore[arg-type]


def with_daemons(site: Site, name: str) -> Work:
    return Work(site, name, f"{name}.1", f"{name}.2")


def lose_server(site: Site, how: signal.Signals) -> float:
    """End the server, or stop it so that all that is sent to it vanishes; when (monotonic)."""
    assert site.server is not None
    site.server.process.send_signal(how)
    wait_for(lambda: site.server is None or state(site.server.pid) in ("T", "Z", ""), "the server to be gone")
    return time.monotonic()


# Renewals


def test_it_is_renewed_and_ends_as_the_command_does(site: Site) -> None:
    tools = [
        site.start_lockersh("--lease", "3", "sleep 5; exit 7", lock="a"),
        site.start_lockersh("--lease", "3", "sleep 5; kill -USR1 $$", lock="b"),
    ]
    wait_for(lambda: len(site.locks()) == 2, "the locks")
    held = site.ask(b"LOCK_INFO")
    assert b" lease 3" in held and b"command sleep%205;%20exit%207" in held
    assert [tool.end() for tool in tools] == [7, -signal.SIGUSR1]
    assert [tool.err for tool in tools] == ["", ""] and site.locks() == {}


def test_a_waited_grant_is_a_whole_lease(site: Site) -> None:
    holder = site.hold()
    waiter = start_worker(site, "w")
    waiter.says("waiting")
    time.sleep(3.5)
    holder.process.terminate()
    work = Work(site, "w")
    time.sleep(2.5)
    assert not work.is_over() and "lost" not in waiter.err
    waiter.process.terminate()
    assert waiter.end() == -signal.SIGTERM


def test_a_server_that_is_gone_for_a_moment_is_no_loss(bare_site: Site) -> None:
    keep = ("--state", str(bare_site.folder / "state"))
    bare_site.serve(*keep)
    tool = start_worker(bare_site, "w", options=("--lease", "4"))
    work = Work(bare_site, "w")
    for how in (signal.SIGKILL, signal.SIGSTOP):
        lose_server(bare_site, how)
        time.sleep(1)
        assert bare_site.server is not None
        if how == signal.SIGSTOP:
            bare_site.server.process.send_signal(signal.SIGCONT)
        else:
            bare_site.serve(*keep)
        time.sleep(4)
        assert not work.is_over() and "lost" not in tool.err
    tool.process.terminate()
    assert tool.end() == -signal.SIGTERM and bare_site.locks() == {}


# A server that is far away


@pytest.fixture
def server_port(bare_site: Site) -> int:
    """The port of a server; what is started with --dhost and --port goes another way."""
    bare_site.serve_tcp()
    return int(bare_site.environment["IPCLOCKER_PORT"])


def over(proxy: Proxy) -> tuple[str, ...]:
    return ("--dhost", "127.0.0.1", "--port", str(proxy.port))


def test_an_answer_takes_long(bare_site: Site, server_port: int) -> None:
    with Proxy(server_port, 0.9) as proxy:  # longer than S/6, and 0.9 s less than S/3, for a host under load
        tool = bare_site.start_lockersh(*over(proxy), "--lease", "5.4", "sleep 7; exit 7")
        assert tool.end() == 7
        assert "lost" not in tool.err and bare_site.locks() == {}, "it was given back before the end"


def test_an_answer_takes_longer_than_the_lease_allows(bare_site: Site, server_port: int) -> None:
    with Proxy(server_port, 1.2) as proxy:
        done = bare_site.lockersh(*over(proxy), "--lease", "3", f"touch {bare_site.folder}/ran")
        assert done.returncode == 69 and "takes too long to answer for a lease of 3 s" in done.stderr
    assert not (bare_site.folder / "ran").exists() and bare_site.locks() == {}


def test_taking_all_takes_longer_than_the_lease(bare_site: Site, server_port: int) -> None:
    names = ":".join(f"n{number}" for number in range(60))
    with Proxy(server_port, 0.08) as proxy:
        tool = bare_site.start_lockersh(*over(proxy), "--lease", "3", "--all", "exit 7", lock=names)
        assert tool.end() == 7 and tool.err == ""
        done = bare_site.lockersh(*over(proxy), "--lease", "3", "--all", "--timeout", "2", "exit 7", lock=names)
        assert done.returncode == 75
        assert done.stderr == (
            "lockersh: it takes longer than 2 s to get 60 locks, though none is busy: give a longer --timeout\n"
        )
        assert bare_site.locks() == {}


def test_the_way_is_dead_when_it_is_to_be_given_back(bare_site: Site, server_port: int) -> None:
    with Proxy(server_port) as proxy:
        go = bare_site.folder / "go"
        tool = bare_site.start_lockersh(*over(proxy), f"while [ ! -e {go} ]; do sleep 0.02; done; exit 7")
        wait_for(bare_site.locks, "the lock")
        proxy.swallow()
        go.touch()
        assert tool.end() == 7 and tool.err == "" and bare_site.locks() == {}


# Losses


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_is_gone(site: Site, how: signal.Signals) -> None:
    """The three leases end in three ways: at the signal, by SIGKILL, and by SIGKILL to daemons as well."""
    tame = start_worker(site, "tame", lock="tame", options=("--lease", "6"))
    deaf = start_worker(site, "deaf", "deaf", lock="deaf", options=("--lease", "6"))
    crowd = start_worker(
        site, "crowd", "deaf", "daemons", lock="crowd", options=("--lease", "6", "--lost-signal", "USR2")
    )
    works = [Work(site, "tame"), Work(site, "deaf"), with_daemons(site, "crowd")]
    gone = lose_server(site, how)
    assert [tool.end() for tool in (tame, deaf, crowd)] == [76, 76, 76]
    assert all(work.is_over() for work in works)
    last_renewal = max(gone, *(work.began for work in works))
    assert all(work.ended < last_renewal + 6 for work in works), "out before the lease is over"
    for tool, name in ((tame, "TERM"), (deaf, "TERM"), (crowd, "USR2")):
        assert "was lost while the command runs: it could not be renewed for 4 s" in tool.err
        assert f"; it gets SIG{name}\n" in tool.err
    assert works[0].ended < works[1].ended - 0.5
    assert "it is killed" not in tame.err and "it is killed, and all that it has started" in deaf.err


def test_a_lock_that_is_broken(site: Site) -> None:
    note = site.folder / "note"
    handler = f"echo $IPCLOCKER_LOCK $IPCLOCKER_TOKEN >{note}; echo out; echo err >&2"
    out = site.folder / "out"
    with out.open("w") as file:
        tool = start_worker(site, "w", "daemons", options=("--lease", "30", "--on-lost", handler), stdout=file)
    work = with_daemons(site, "w")
    token = site.ask(b"LOCK_INFO").split(b" token ")[1].split()[0].decode()
    broken = time.monotonic()
    site.free("x")
    assert tool.end() == 76
    assert work.is_over() and work.ended - broken < 10
    assert note.read_text() == f"x {token}\n"
    assert "lock x was lost while the command runs: it was broken" in tool.err
    assert out.read_text() == "" and "out\nerr\n" in tool.err, "what the handler prints is not the command's output"


def test_what_a_broken_command_may_still_do_it_may_for_a_third_of_the_lease(site: Site) -> None:
    tool = start_worker(site, "w", "deaf", options=("--lease", "4.5"))
    work = Work(site, "w")
    broken = time.monotonic()
    site.free("x")
    assert tool.end() == 76
    assert work.ended - broken < 4


def test_a_recalled_lease_goes_to_the_next_when_the_command_is_out(site: Site) -> None:
    holder = start_worker(site, "old", "deaf", "daemons", options=("--lease", "6"))
    old = with_daemons(site, "old")
    waiter = start_worker(site, "new")
    waiter.says("waiting")
    assert b"print_recalled" in site.ask(b"locks x\nRECALL")
    assert holder.end() == 76 and "it is asked for back; it gets SIGTERM" in holder.err
    new = Work(site, "new")
    assert old.ended < new.began and old.is_over()
    assert new.began - old.ended < 3, "it was given back at once"
    waiter.process.terminate()
    assert waiter.end() == -signal.SIGTERM


def test_a_command_that_ends_at_the_signal_leaves_nothing(site: Site) -> None:
    """What it has started gets the signal when it has ended itself."""
    script = f"{sys.executable} {WORKER} {site.folder}/below daemons & wait"
    tool = site.start_lockersh("--lease", "60", script)
    work = with_daemons(site, "below")
    broken = time.monotonic()
    site.free("x")
    assert tool.end() == 76 and work.is_over()
    assert time.monotonic() - broken < 10


# What happens to lockersh itself


@pytest.mark.parametrize("lost", [True, False])
def test_lockersh_is_stopped_for_longer_than_its_lease(site: Site, lost: bool) -> None:
    """Its watchdog ends the command in time, whether the server would have kept the lock or not."""
    tool = start_worker(site, "w", "deaf", "daemons")
    work = with_daemons(site, "w")
    tool.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    if lost:
        site.free("x")
    wait_for(work.is_over, "the end of the command")
    assert work.ended < stopped + 3
    assert state(tool.pid) == "T"
    tool.process.send_signal(signal.SIGCONT)
    assert tool.end() == 76
    assert "lost while the command runs" in tool.err and "it is killed" in tool.err
    assert lost or "lockersh itself was stopped" in tool.err
    assert site.locks() == {}


def test_a_command_that_ends_well_while_lockersh_is_stopped(site: Site) -> None:
    go = site.folder / "go"
    tool = site.start_lockersh("--lease", "3", f"touch {go}.on; while [ ! -e {go} ]; do sleep 0.01; done; exit 5")
    wait_for(Path(f"{go}.on").exists, "the command")
    tool.process.send_signal(signal.SIGSTOP)
    go.touch()
    wait_for(lambda: not living_children(tool.pid), "the end of the command")
    time.sleep(4)
    tool.process.send_signal(signal.SIGCONT)
    assert tool.end() == 5 and tool.err == ""


def test_lockersh_is_killed(site: Site) -> None:
    tool = start_worker(site, "w", "deaf", "daemons", options=("--lease", "4"))
    work = with_daemons(site, "w")
    tool.process.kill()
    wait_for(work.is_over, "the end of all")
    wait_for(lambda: site.locks() == {}, "the lock to be free")


def test_the_watchdog_is_killed(site: Site) -> None:
    tool = start_worker(site, "w", "deaf")
    work = Work(site, "w")
    for pid in set(processes_with(" ".join(command_line(tool.pid)))) - {tool.pid}:
        os.kill(pid, signal.SIGKILL)
    gone = lose_server(site, signal.SIGSTOP)
    assert tool.end() == 76 and work.is_over() and work.ended < gone + 3


def test_a_watchdog_that_was_killed_is_replaced(site: Site) -> None:
    tool = start_worker(site, "w", "deaf", "daemons")
    work = with_daemons(site, "w")
    line = " ".join(command_line(tool.pid))
    (first,) = set(processes_with(line)) - {tool.pid}
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: set(processes_with(line)) - {tool.pid, first}, "another one")
    tool.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    wait_for(work.is_over, "the end of the command")
    assert work.ended < stopped + 3
    tool.process.send_signal(signal.SIGCONT)
    assert tool.end() == 76


def test_no_watchdog_is_left(site: Site) -> None:
    tool = site.start_lockersh("--lease", "60", "sleep 0.2")
    line = " ".join(wait_for(lambda: command_line(tool.pid), "its words"))
    assert tool.end() == 0
    wait_for(lambda: not processes_with(line), "the watchdog's end")


def test_a_run_within_a_run_ends_with_it(site: Site) -> None:
    inner = f"{site.file} lockersh --lock inner --lease 4 {sys.executable} {WORKER} {site.folder}/w deaf daemons"
    tool = site.start_lockersh("--lease", "4.5", inner, lock="outer")
    work = with_daemons(site, "w")
    site.free("outer")
    assert tool.end() == 76 and work.is_over()
    wait_for(lambda: site.locks() == {}, "the inner lock to be free")


# Without a lease


def test_to_warn_is_all_that_is_done_by_default(site: Site) -> None:
    tool = site.start_lockersh("sleep 1; exit 4")
    wait_for(site.locks, "the lock")
    site.free("x")
    tool.says("lock x was lost while the command runs: it was broken")
    assert tool.end() == 4 and tool.err.count("lost") == 1


def test_on_lost_kill(site: Site) -> None:
    options = ("--on-lost", "kill", "--lost-signal", "INT")
    tame = start_worker(site, "tame", "daemons", options=options, lock="tame")
    deaf = start_worker(site, "deaf", "deaf", "daemons", options=options, lock="deaf")
    works = [with_daemons(site, "tame"), with_daemons(site, "deaf")]
    broken = time.monotonic()
    site.free("tame", "deaf")
    assert tame.end() == 76
    assert time.monotonic() < broken + 5
    assert deaf.end() == 76
    assert all(work.is_over() for work in works) and works[1].ended - broken < 10
    assert "; it gets SIGINT" in tame.err and "it is killed, and all that it has started" in deaf.err


def test_on_lost_a_command_line_runs_besides(site: Site) -> None:
    note = site.folder / "note"
    tool = site.start_lockersh(
        "--on-lost", f"echo lost $IPCLOCKER_LOCK >>{note}", f"while [ ! -e {note} ]; do sleep 0.02; done; exit 6"
    )
    wait_for(site.locks, "the lock")
    site.free("x")
    assert tool.end() == 6 and note.read_text() == "lost x\n"


def test_a_handler_that_takes_too_long_is_left_alone(site: Site) -> None:
    tool = site.start_lockersh(
        "--on-lost", f"echo $$ >{site.folder}/pid; exec sleep 1000", "--lease", "60", "sleep 1000"
    )
    wait_for(site.locks, "the lock")
    site.free("x")
    assert tool.end() == 76
    pid = int((site.folder / "pid").read_text())
    site.ends_with(pid)
    assert is_alive(pid)


# Servers and words that are no good


def test_a_server_that_knows_no_leases(bare_site: Site) -> None:
    with ClassicServer() as server:
        bare_site.environment.update(IPCLOCKER_HOST="127.0.0.1", IPCLOCKER_PORT=str(server.port))
        done = bare_site.lockersh("--lease", "30", "echo ran")
        assert (done.returncode, done.stdout) == (69, "") and "knows no leases" in done.stderr
        assert server.holders == {}
        assert bare_site.lockersh("echo ran").stdout == "ran\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lease", "2.9"), "lease is '2.9': it takes 3 seconds or more"),
        (("--lease", "-5"), "'-5' is no number of seconds"),
        (("--lease", "5", "--hold-timeout", "9"), "give one of them"),
        (("--lost-signal", "BANG"), "the signal 'BANG' is not known"),
    ],
)
def test_words_that_mean_nothing(site: Site, words: tuple[str, ...], said: str) -> None:
    done = site.lockersh(*words, "echo ran")
    assert (done.returncode, done.stdout) == (64, "") and said in done.stderr


# All or nothing


def test_all_of_several(site: Site) -> None:
    done = site.run(
        "lockersh", "--all", "--lock", "b", "--lock", "c:a", "printenv IPCLOCKER_LOCK IPCLOCKER_TOKEN; exit 3"
    )
    names, tokens = done.stdout.splitlines()
    assert done.returncode == 3 and names == "a b c"
    assert len(tokens.split()) == 3 and tokens.split() == sorted(tokens.split())
    assert site.locks() == {}


def test_all_or_none(site: Site) -> None:
    site.hold("b")
    done = site.run("lockersh", "--all", "--lock", "a", "--lock", "b", "--lock", "c", "--timeout", "0", "echo ran")
    assert done.returncode == 75 and done.stdout == "" and "lock b is busy" in done.stderr
    done = site.run("lockersh", "--all", "--lock", "a", "--lock", "b", "--timeout", "0.3", "echo ran")
    assert done.returncode == 75 and set(site.locks()) == {"b"}
    waiter = site.start("lockersh", "--all", "--lock", "a", "--lock", "b", "--verbose", "echo ran")
    waiter.says("waiting for lock b")
    assert set(site.locks()) == {"a", "b"}
    waiter.process.terminate()
    assert waiter.end() == -signal.SIGTERM and set(site.locks()) == {"b"}


def test_opposite_orders_do_not_block(site: Site) -> None:
    tools = [
        site.start("lockersh", "--all", *(word for name in names for word in ("--lock", name)), "sleep 0.05")
        for names in ("abc", "cba", "bca", "acb") * 3
    ]
    assert [tool.end() for tool in tools] == [0] * 12 and site.locks() == {}


def test_the_loss_of_one_is_the_loss_of_all(site: Site) -> None:
    options = ("--all", "--lock", "y", "--lease", "60")
    tool = start_worker(site, "w", options=options)
    work = Work(site, "w")
    assert set(site.locks()) == {"x", "y"}
    site.free("y")
    assert tool.end() == 76 and work.is_over() and site.locks() == {}
    assert "lock y was lost" in tool.err


# Hosts that are cut off


@pytest.mark.skipif(not nodes_can_be_made(), reason="hosts of its own take root")
@pytest.mark.parametrize("silently", [False, True])
def test_a_host_that_is_cut_off(built_file: Path, cache: Path, silently: bool) -> None:
    """Its command has ended before that of another host begins; when it comes back, nothing is left to do."""
    with new_site(built_file, cache) as site, new_nodes(site, "server", "first", "second") as nodes:
        server, first, second = nodes
        server.start(site.file, "lockerd", "--nofork", "--state", "none", "--host", "0.0.0.0", "--port", "1751").says(
            "listening on "
        )

        def start(node: Node, name: str, *how: str) -> Tool:
            words = [sys.executable, str(WORKER), str(site.folder / name), *how]
            options = ["--dhost", server.address, "--port", "1751", "--lock", "x", "--lease", "5", "--verbose"]
            return node.start(site.file, "lockersh", *options, *words)

        holder = start(first, "old", "deaf", "daemons")
        old = Work(site, "old", "old.1", "old.2")
        waiter = start(second, "new")
        waiter.says("waiting")
        begin = time.monotonic()
        if silently:
            server.run("ip", "link", "set", "port1", "nomaster")  # what is sent vanishes in the switch
        else:
            first.cut()
        new = Work(site, "new")
        assert old.ended < new.began, "two at once"
        assert new.began - begin < 60
        assert holder.end() == 76 and "it could not be renewed" in holder.err
        if silently:
            server.run("ip", "link", "set", "port1", "master", "switch")
        else:
            first.cut(off=False)
        time.sleep(0.5)
        assert old.ended < new.began
        waiter.process.terminate()
        waiter.end()


def test_a_socket_is_never_waited_for_beyond_the_times(bare_site: Site) -> None:
    """A server that takes connections and never answers, behind one that has granted the lock."""
    server = bare_site.serve()
    tool = start_worker(bare_site, "w", "deaf")
    work = Work(bare_site, "w")
    server.process.kill()
    server.process.wait()
    path = bare_site.environment["IPCLOCKER_PORT"]
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(50)
        gone = time.monotonic()
        assert tool.end() == 76
    assert work.ended < gone + 3
