"""Locks of processes that run already: scripts of all shells, real keepers, and whoever is killed on the way."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.fake_servers import ClassicServer
from ..support.processes import NO_PID, all_gone, children, is_alive, state
from ..support.site import NOBODY_UID, Site, Tool, as_root, nodes_can_be_made
from ..support.waiting import DEADLINE, wait_for

SHELLS = ["sh", "bash", "dash", "busybox sh"]
FOLDER = Path("/run" if os.geteuid() == 0 else "/tmp") / f"ipclocker-for-{os.geteuid()}"


class Script:
    """A script that runs in a shell; it says things, and goes on when it is told to (`read`)."""

    def __init__(self, site: Site, text: str, shell: str = "sh", **more: object) -> None:
        self.site = site
        path = site.folder / f"script.{len(list(site.folder.iterdir()))}"
        path.write_text(text.replace("LOCKERSH", f"{site.file} lockersh"))
        stderr = path.with_suffix(".err")
        given = {"env": site.environment, **more}
        with stderr.open("w") as file:
            self.process = subprocess.Popen(
                [*shell.split(), str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                bufsize=1,
                **given,  # type: ignore[call-overload]
            )
        self.pid: int = self.process.pid
        self.tool = Tool(self.process, stderr)
        site.watch(self.tool)

    def says(self) -> str:
        assert self.process.stdout is not None
        return str(self.process.stdout.readline()).rstrip("\n")

    def end(self) -> int:
        """Let it read a line, and wait for its end."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
        return self.tool.end()


def sleeper(site: Site) -> int:
    """A process that takes no part in anything."""
    process = subprocess.Popen(["sleep", "1000"])
    site.watch(Tool(process, site.folder / "none"))  # type: ignore[arg-type]
    return process.pid


def keepers(pid: int, lock: str = "x") -> list[int]:
    """The keeper of a lock for this process, and its watchdog; the oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
        except OSError:
            continue
        if title == f"lockersh: keeps lock {lock} for process {pid}" and is_alive(int(path.name)):
            found.append(int(path.name))
    return sorted(found)


def is_free(site: Site, lock: str = "x") -> bool:
    return lock not in site.locks()


@pytest.fixture
def site(site: Site) -> Iterator[Site]:
    yield site
    site.end_tools()
    wait_for(lambda: site.server is None or site.server.process.poll() is not None or not site.locks(), "free locks")


# Scripts


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_holds_it_until_it_ends(site: Site, shell: str) -> None:
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"there is no {shell}")
    script = Script(site, "LOCKERSH --for $$ --lock x || exit\necho held $?\nread line\nexit 7\n", shell)
    assert script.says() == "held 0"
    assert site.lockersh("--timeout", "0", "true").returncode == 75
    assert script.end() == 7
    assert site.lockersh("echo ran").stdout == "ran\n", "without any pidstatd"
    assert script.tool.err == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_eval_of_what_is_printed(site: Site, shell: str) -> None:
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"there is no {shell}")
    name = "a'b\"c$d;e`f*\\g"
    text = f"""
        eval "$(LOCKERSH --for $$ --print --lock {shlex.quote(name)})"
        printf '%s\\n' "$IPCLOCKER_LOCK" "$IPCLOCKER_TOKEN" "$IPCLOCKER_SPACE"
        LOCKERSH --for $$ --print --lock {shlex.quote(name)}
        read line
    """
    script = Script(site, text, shell)
    assert script.says() == name
    token, space = script.says(), script.says()
    assert site.run("lockstat", "verify", name, token).returncode == 0
    assert space and script.says() == "IPCLOCKER_LOCK=" + shlex.quote(name)
    assert script.says() == f"IPCLOCKER_TOKEN={token}", "it is the same grant"
    script.end()


def test_a_script_that_becomes_another_program(site: Site) -> None:
    script = Script(site, "LOCKERSH --for $$ --lock x || exit\necho held\nexec sleep 1000\n")
    assert script.says() == "held"
    wait_for(lambda: Path(f"/proc/{script.pid}/comm").read_text() == "sleep\n", "the other program")
    assert not is_free(site)
    script.process.terminate()
    wait_for(lambda: is_free(site), "the lock to be free")


def test_a_caller_that_is_killed(site: Site) -> None:
    script = Script(site, "LOCKERSH --for $$ --lock x || exit\necho held\nread line\n")
    assert script.says() == "held"
    script.process.kill()
    assert site.lockersh("echo ran").stdout == "ran\n"


def test_as_cron_runs_it(site: Site) -> None:
    """Without an environment, a folder or a terminal; cron waits until all have closed its pipe."""
    lost = site.folder / "lost"
    lost.mkdir()
    host = f"--path {site.environment['IPCLOCKER_PORT']}"
    line = f"rmdir {lost}; {site.file} lockersh --for {{}} {host} --lock x && echo got it"
    pid = sleeper(site)
    done = subprocess.run(
        ["/bin/sh", "-c", line.format(pid)],
        env={"IPCLOCKER_CACHE": site.environment["IPCLOCKER_CACHE"]},
        cwd=lost,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("got it\n", "", 0)
    assert not is_free(site)


def test_it_returns_with_all_descriptors_closed(site: Site) -> None:
    """As over ssh, which waits for the end of the pipes and not of the process."""
    pid = sleeper(site)
    extra, other = os.pipe()
    command = [site.file, "lockersh", "--for", str(pid), "--print", "--lock", "x"]
    done = subprocess.run(
        command, env=site.environment, capture_output=True, timeout=DEADLINE, pass_fds=[other], cwd=site.folder
    )
    assert done.returncode == 0 and done.stdout.startswith(b"IPCLOCKER_LOCK=x\n") and done.stderr == b""
    os.close(other)
    assert os.read(extra, 1) == b"", "nobody has the other end of any pipe of the caller's"
    os.close(extra)
    (keeper,) = keepers(pid)
    assert os.getsid(keeper) == keeper and os.readlink(f"/proc/{keeper}/cwd") == "/"
    files = {os.readlink(f"/proc/{keeper}/fd/{number}") for number in os.listdir(f"/proc/{keeper}/fd")}
    assert not any(name.startswith("pipe:") or "pts" in name or str(site.folder) in name for name in files), files
    assert {os.readlink(f"/proc/{keeper}/fd/{number}") for number in (0, 1, 2)} == {"/dev/null"}


def test_a_name_can_be_held_beside_another(site: Site) -> None:
    pid = str(sleeper(site))
    for lock in ("x", "y", "z"):
        assert site.lockersh("--for", pid, lock=lock).returncode == 0
    assert site.lockersh("--for", pid, "--release", lock="y").returncode == 0
    assert set(site.locks()) == {"x", "z"}
    os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: not site.locks(), "both to be free")


def test_all_or_the_first_that_is_free(site: Site) -> None:
    pid = str(sleeper(site))
    site.hold("a")
    done = site.run("lockersh", "--for", pid, "--print", "--lock", "a:b")
    assert done.stdout.startswith("IPCLOCKER_LOCK=b\n")
    again = site.run("lockersh", "--for", pid, "--print", "--lock", "a:b")
    assert again.stdout == done.stdout, "it has one of them"
    assert site.run("lockersh", "--for", pid, "--print", "--lock", "b").stdout == done.stdout
    done = site.run("lockersh", "--for", pid, "--print", "--all", "--lock", "c:d")
    assert done.stdout.startswith("IPCLOCKER_LOCK='c d'\n")
    assert set(site.locks()) == {"a", "b", "c", "d"}
    assert site.run("lockersh", "--for", pid, "--release", "--lock", "c:b").returncode == 0
    assert set(site.locks()) == {"a"}, "what was taken together is given back together"


def test_a_lock_of_its_own_is_not_waited_for(site: Site) -> None:
    script = Script(
        site,
        """
        LOCKERSH --for $$ --lock x || exit
        LOCKERSH --lock x true; echo $?
        LOCKERSH --lock y -- sh -c 'LOCKERSH --for $$ --lock y; echo $?'
        """,
    )
    assert [script.says(), script.says()] == ["75", "75"]
    assert script.end() == 0
    assert script.tool.err.count("would wait for itself") == 2


# Giving it back


def test_it_is_free_when_the_release_has_returned(site: Site) -> None:
    script = Script(
        site,
        """
        for turn in 1 2 3 4 5; do
            LOCKERSH --for $$ --lock x || exit
            LOCKERSH --for $$ --release --lock x || exit
            LOCKERSH --lock x --timeout 0 echo free $turn || exit
        done
        LOCKERSH --for $$ --release --lock x
        echo $?
        """,
    )
    assert [script.says() for _ in range(6)] == [*(f"free {turn}" for turn in range(1, 6)), "69"]
    assert "nothing holds lock x for process" in script.tool.err
    wait_for(lambda: not list(FOLDER.glob(f"{script.pid}.*")), "no socket is left")


def test_a_lease_that_was_given_back_ends_nobody(site: Site) -> None:
    pid = sleeper(site)
    assert site.lockersh("--for", str(pid), "--lease", "60").returncode == 0
    left = keepers(pid)
    assert len(left) == 2, "the keeper and its watchdog"
    assert site.lockersh("--for", str(pid), "--release").returncode == 0
    all_gone(left)
    assert is_alive(pid) and is_free(site)


def test_a_server_that_is_away_when_it_is_given_back(bare_site: Site) -> None:
    site = bare_site
    site.serve("--state", str(site.folder / "locks"))
    pid = str(sleeper(site))
    assert site.lockersh("--for", pid).returncode == 0
    assert site.server is not None
    site.server.process.kill()
    site.server.process.wait()
    done = site.lockersh("--for", pid, "--release", "--release-tries", "0.3")
    assert done.returncode == 69 and "it is tried again and again" in done.stderr, done.stderr
    done = site.lockersh("--for", pid)
    assert done.returncode == 75 and "being given back" in done.stderr
    site.serve("--state", str(site.folder / "locks"))
    wait_for(lambda: is_free(site), "the lock to be free")
    wait_for(lambda: not keepers(int(pid)), "the keeper's end")
    assert is_alive(int(pid))


# Once more


def test_a_second_time(site: Site) -> None:
    pid = str(sleeper(site))
    first = site.lockersh("--for", pid, "--print", "--lease", "60")
    assert site.lockersh("--for", pid, "--print", "--lease", "60").stdout == first.stdout
    for terms in ([], ["--lease", "50"], ["--hold-timeout", "60"]):
        done = site.lockersh("--for", pid, *terms)
        assert done.returncode == 64 and "--lease is 60 there, not " in done.stderr
    assert len(keepers(int(pid))) == 2


def test_readers_and_a_number_at_a_time(site: Site) -> None:
    first, second, third = (str(sleeper(site)) for _ in range(3))
    for pid in (first, second):
        assert site.lockersh("--for", pid, "--shared").returncode == 0
        assert site.lockersh("--for", pid, "--slots", "2", "--timeout", "0", lock="y").returncode == 0
    assert site.lockersh("--for", third, "--timeout", "0").returncode == 75, "a writer"
    assert site.lockersh("--for", third, "--slots", "2", "--timeout", "0", lock="y").returncode == 75
    done = site.lockersh("--for", first)
    assert done.returncode == 64 and "--slots is any number (--shared) there, not 1" in done.stderr
    assert site.lockersh("--for", first, "--release").returncode == 0
    os.kill(int(second), signal.SIGKILL)
    assert site.lockersh("--for", third).returncode == 0


def test_a_lock_that_is_kept_for_a_time(site: Site) -> None:
    pid = str(sleeper(site))
    terms = ("--min-hold", "1000")
    first = site.lockersh("--for", pid, "--print", *terms)
    assert site.lockersh("--for", pid, "--print", *terms).stdout == first.stdout
    assert site.lockersh("--for", pid, "--min-hold", "999").returncode == 64
    assert site.lockersh("--for", pid, "--release").returncode == 0, "it does not wait for that"
    assert not keepers(int(pid)) and not is_free(site)
    done = site.lockersh("--for", pid, "--timeout", "0", *terms)
    assert done.returncode == 75, done.stderr
    assert "would wait for itself" not in done.stderr, "its process is asked for no more"
    site.free("x")
    assert site.lockersh("--for", pid, *terms).returncode == 0
    os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: not keepers(int(pid)), "the keeper's end")
    assert not is_free(site)
    site.free("x")


def test_many_at_once(site: Site) -> None:
    pid = str(sleeper(site))
    tools = [
        site.start("lockersh", "--for", pid, "--print", "--lock", "x", stdout=subprocess.PIPE, env=site.environment)
        for _ in range(6)
    ]
    said = {tool.out() for tool in tools}
    assert [(tool.process.returncode, tool.err) for tool in tools] == [(0, "")] * 6
    assert len(said) == 1
    assert len(keepers(int(pid))) == 1


def test_one_that_joins_waits_no_longer_than_it_was_told(site: Site) -> None:
    holder = site.hold()
    pid = str(sleeper(site))
    first = site.start_lockersh("--for", pid)
    first.says("waiting for lock x")
    for wait in ("0", "0.2"):
        assert site.lockersh("--for", pid, "--timeout", wait).returncode == 75
    second = site.start_lockersh("--for", pid)
    first.process.kill()
    first.process.wait()
    holder.process.terminate()
    assert second.end() == 0, "it takes over from the one that began"
    assert f"_{pid}_" in site.locks()["x"]


# Waiting


def test_one_that_is_interrupted_takes_nothing(site: Site) -> None:
    holder = site.hold()
    pid = sleeper(site)
    waiter = site.start_lockersh("--for", str(pid))
    waiter.says("waiting for lock x")
    waiter.process.send_signal(signal.SIGINT)
    assert waiter.end() == -signal.SIGINT
    wait_for(lambda: not keepers(pid), "the keeper's end")
    holder.process.terminate()
    wait_for(lambda: is_free(site), "the lock to be free")
    assert is_alive(pid)


def test_a_process_that_ends_meanwhile(site: Site) -> None:
    site.hold()
    pid = sleeper(site)
    waiter = site.start_lockersh("--for", str(pid))
    waiter.says("waiting for lock x")
    os.kill(pid, signal.SIGKILL)
    assert waiter.end() == 64
    assert f"process {pid} has ended, so there is nothing to hold a lock for" in waiter.err
    wait_for(lambda: b"waiters  0" in site.run("lockstat", "show", "x").stdout.encode(), "no waiter")


def test_one_that_waits_can_be_called_off(site: Site) -> None:
    site.hold()
    pid = sleeper(site)
    waiter = site.start_lockersh("--for", str(pid), "--lease", "60")
    waiter.says("waiting for lock x")
    assert site.lockersh("--for", str(pid), "--release").returncode == 0
    assert waiter.end() == 75 and "given back before it was granted" in waiter.err
    assert is_alive(pid)


def test_a_busy_lock(site: Site) -> None:
    site.hold()
    pid = str(sleeper(site))
    done = site.lockersh("--for", pid, "--timeout", "0", "--conflict-exit-code", "9")
    assert done.returncode == 9 and "lock x is busy" in done.stderr
    assert site.lockersh("--for", pid, "--timeout", "0.2").returncode == 75
    wait_for(lambda: not keepers(int(pid)), "the keeper's end")


def test_a_grant_that_can_not_be_told_is_given_back(site: Site) -> None:
    pid = str(sleeper(site))
    with open("/dev/full", "w") as full:
        done = site.run("lockersh", "--for", pid, "--print", "--lock", "x", capture_output=False, stdout=full)
    assert done.returncode == 74
    wait_for(lambda: is_free(site), "the lock to be free")


def test_a_keeper_that_is_killed_while_it_waits(site: Site) -> None:
    site.hold()
    pid = sleeper(site)
    waiter = site.start_lockersh("--for", str(pid), "--lease", "60")
    waiter.says("waiting for lock x")
    keeper, watchdog = keepers(pid)
    os.kill(keeper, signal.SIGKILL)
    assert waiter.end() == 70 and "was killed" in waiter.err
    all_gone([watchdog])
    assert is_alive(pid), "it had nothing yet, so it lost nothing"


# Keepers and servers that are killed


def test_a_keeper_that_is_killed_leaves_the_lock_with_the_process(site: Site) -> None:
    pid = sleeper(site)
    assert site.lockersh("--for", str(pid)).returncode == 0
    (keeper,) = keepers(pid)
    os.kill(keeper, signal.SIGKILL)
    all_gone([keeper])
    assert site.lockersh("--timeout", "0", "true").returncode == 75
    done = site.lockersh("--for", str(pid))
    assert done.returncode == 75 and f"is held by process {pid} itself" in done.stderr
    assert site.lockersh("--for", str(pid), "--release").returncode == 69
    os.kill(pid, signal.SIGKILL)
    assert site.lockersh("echo ran").stdout == "ran\n", "the server sees that the process is gone"
    assert site.lockersh("--for", str(sleeper(site)), lock="y").returncode == 0
    assert not list(FOLDER.glob(f"{pid}.*")), "what it left is removed by the next one"


LEASED = """
    trap 'echo told; exit 3' TERM
    LOCKERSH --for $$ --lock x --lease 6 OPTIONS || exit
    sleep 1000 &
    echo $!
    wait
"""


def test_a_keeper_that_is_killed_with_a_lease(site: Site) -> None:
    script = Script(site, LEASED.replace("6 OPTIONS", "60"))
    below = int(script.says())
    os.kill(keepers(script.pid)[0], signal.SIGKILL)
    assert script.process.wait(DEADLINE) == -signal.SIGKILL
    all_gone([below])
    wait_for(lambda: not keepers(script.pid), "the watchdog's end")
    site.free("x")  # as any lease it stays until it runs out: not all may have ended


def test_a_keeper_that_is_stopped_with_a_lease(site: Site) -> None:
    script = Script(site, LEASED.replace("OPTIONS", ""))
    below = int(script.says())
    keeper = keepers(script.pid)[0]
    os.kill(keeper, signal.SIGSTOP)
    assert script.process.wait(DEADLINE) == -signal.SIGKILL
    all_gone([below])
    os.kill(keeper, signal.SIGCONT)
    wait_for(lambda: not keepers(script.pid), "the keeper's end")


def test_a_stopped_keeper_hangs_nobody(site: Site) -> None:
    pid = sleeper(site)
    assert site.lockersh("--for", str(pid)).returncode == 0
    (keeper,) = keepers(pid)
    os.kill(keeper, signal.SIGSTOP)
    done = site.lockersh("--for", str(pid), "--release")
    assert done.returncode == 69 and "does not answer: it may be stopped" in done.stderr
    os.kill(keeper, signal.SIGCONT)


def test_a_lease_that_can_not_be_renewed(site: Site) -> None:
    script = Script(site, LEASED.replace("OPTIONS", ""))
    below = int(script.says())
    assert site.server is not None
    site.server.process.kill()
    assert script.says() == "told"
    assert script.process.wait(DEADLINE) == 3
    all_gone([below])
    wait_for(lambda: not keepers(script.pid), "the keeper's end")


def test_another_signal_and_a_command_line(site: Site) -> None:
    note = site.folder / "note"
    script = Script(
        site,
        LEASED.replace("TERM", "USR1").replace(
            "OPTIONS", f"--lost-signal USR1 --on-lost 'echo $IPCLOCKER_LOCK $IPCLOCKER_TOKEN $PWD >{note}'"
        ),
    )
    script.says()
    site.free("x")
    assert script.says() == "told" and script.process.wait(DEADLINE) == 3
    name, token, folder = wait_for(lambda: note.read_text().split() if note.exists() else [], "the note")
    assert (name, folder) == ("x", "/") and token.isdigit()


def test_a_process_that_gets_orphans_is_ended_as_well(site: Site) -> None:
    """Then the keeper and the watchdog are below it."""
    program = f"""
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
subprocess.run([{site.file!r}, "lockersh", "--for", str(os.getpid()), "--lock", "x", "--lease", "3"], check=True)
print("held", flush=True)
time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", program], env=site.environment, stdout=subprocess.PIPE, text=True)
    site.watch(Tool(process, site.folder / "none"))
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    assert set(keepers(process.pid)) <= set(children(process.pid))
    site.free("x")
    assert process.wait(DEADLINE) in (-signal.SIGTERM, -signal.SIGKILL)


def test_a_loss_without_a_lease_is_told_at_the_release(site: Site) -> None:
    pid = str(sleeper(site))
    first = site.lockersh("--for", pid, "--print").stdout
    site.free("x")
    wait_for(lambda: is_free(site), "the lock to be free")
    done = site.lockersh("--for", pid, "--release")
    assert done.returncode == 76 and "lock x was lost before it was given back" in done.stderr
    first = site.lockersh("--for", pid, "--print").stdout
    site.free("x")
    time.sleep(0.2)
    second = wait_for(lambda: (said := site.lockersh("--for", pid, "--print").stdout) != first and said, "a new one")
    assert second and site.lockersh("--for", pid, "--release").returncode == 0
    assert is_alive(int(pid))


def test_on_lost_kill(site: Site) -> None:
    pid = sleeper(site)
    assert site.lockersh("--for", str(pid), "--on-lost", "kill").returncode == 0
    site.free("x")
    wait_for(lambda: not is_alive(pid), "the end of the process")


def test_a_hold_time_that_is_over(site: Site) -> None:
    pid = str(sleeper(site))
    assert site.lockersh("--for", pid, "--hold-timeout", "0.2").returncode == 0
    wait_for(lambda: is_free(site), "the lock to be free")
    assert site.lockersh("--for", pid, "--release").returncode == 76


@pytest.mark.parametrize("terms", [[], ["--lease", "30"]], ids=["", "lease"])
def test_a_server_that_restarts(bare_site: Site, terms: list[str]) -> None:
    site = bare_site
    site.serve("--state", str(site.folder / "locks"))
    pid = str(sleeper(site))
    token = site.lockersh("--for", pid, "--print", *terms).stdout.splitlines()[1].partition("=")[2]
    assert site.server is not None
    site.server.process.kill()
    site.server.process.wait()
    site.serve("--state", str(site.folder / "locks"))
    assert site.run("lockstat", "verify", "x", token).returncode == 0
    assert site.lockersh("--for", pid, *terms).returncode == 0
    assert site.lockersh("--for", pid, "--release").returncode == 0
    wait_for(lambda: is_free(site), "the lock to be free; after a restart it is kept a moment for those who waited")
    assert is_alive(int(pid))


def test_a_server_that_remembers_nothing(site: Site) -> None:
    pid = str(sleeper(site))
    assert site.lockersh("--for", pid, "--on-lost", "kill").returncode == 0
    assert site.server is not None
    site.server.process.kill()
    site.server.process.wait()
    site.serve()
    wait_for(lambda: not is_alive(int(pid)), "the end of the process, which has lost its lock")


def test_a_classic_server(bare_site: Site) -> None:
    with ClassicServer() as server:
        bare_site.environment.update(IPCLOCKER_HOST="127.0.0.1", IPCLOCKER_PORT=str(server.port))
        pid = str(sleeper(bare_site))
        done = bare_site.lockersh("--for", pid, "--print")
        assert (done.returncode, done.stderr) == (0, "")
        assert "unset IPCLOCKER_TOKEN\n" in done.stdout and f"IPCLOCKER_SPACE=127.0.0.1:{server.port}\n" in done.stdout
        assert bare_site.lockersh("--for", pid, "--lease", "9", lock="y").returncode == 69
        assert bare_site.lockersh("--for", pid, "--release").returncode == 0
        assert not server.holders
        assert is_alive(int(pid))


# What is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--for", "0"), "0"),
        (("--for", "me"), "me"),
        (("--for", str(NO_PID)), f"there is no process {NO_PID}"),
        (("--for", "2000000000"), "there is no process 2000000000"),
        (("--for", "PID", "true"), "--for runs no command"),
        (("--for", "PID", "--nested"), "leave --nested out"),
        (("--for", "PID", "--release", "--print"), "nothing to --print after a --release"),
        (("--for", "PID", "--lease", "5", "--hold-timeout", "5"), "give one of them"),
        (("--release", "true"), "--release goes with --for PID"),
        (("--print", "true"), "--print goes with --for PID"),
        (("--for", "1", "--lease", "5"), "process 1 can't be ended"),
    ],
)
def test_words_that_mean_nothing(site: Site, words: tuple[str, ...], said: str) -> None:
    done = site.lockersh(*[word.replace("PID", str(os.getpid())) for word in words])
    assert (done.returncode, done.stdout) == (64, "") and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert is_free(site)


def test_no_server(bare_site: Site) -> None:
    done = bare_site.lockersh("--for", str(os.getpid()), "--connect-tries", "1")
    assert done.returncode == 69 and "no lock server answers" in done.stderr


def test_a_zombie_is_no_process(site: Site) -> None:
    process = subprocess.Popen(["true"])
    wait_for(lambda: state(process.pid) == "Z", "its end")
    assert site.lockersh("--for", str(process.pid)).returncode == 64
    process.wait()


def as_nobody(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    site.folder.chmod(0o755)
    file = site.folder / "ipclocker"
    shutil.copy(site.file, file)
    environment = {**site.environment, "IPCLOCKER_CACHE": str(site.folder / "nowhere")}
    return subprocess.run(
        [file, "lockersh", *words], user=NOBODY_UID, env=environment, capture_output=True, text=True, timeout=DEADLINE
    )


@as_root
def test_a_process_of_another_user(site: Site) -> None:
    theirs = subprocess.Popen(["sleep", "1000"], user=NOBODY_UID)
    site.watch(Tool(theirs, site.folder / "none"))  # type: ignore[arg-type]
    assert site.lockersh("--for", str(theirs.pid)).returncode == 0, "root may"
    assert site.lockersh("--for", str(theirs.pid), "--release").returncode == 0
    ours = sleeper(site)
    for more in ((), ("--release",)):
        done = as_nobody(site, "--for", str(ours), "--lock", "x", *more)
        assert done.returncode == 77 and f"process {ours} is another user's" in done.stderr
    folder = Path(f"/tmp/ipclocker-for-{NOBODY_UID}")
    done = as_nobody(site, "--for", str(theirs.pid), "--lock", "x")
    assert (done.returncode, done.stderr) == (0, "")
    assert folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == NOBODY_UID
    folder.chmod(0o755)
    try:
        done = as_nobody(site, "--for", str(theirs.pid), "--lock", "y")
        assert done.returncode == 74 and f"{folder}: its mode is 755, and has to be 700" in done.stderr
    finally:
        folder.chmod(0o700)
    done = as_nobody(site, "--for", str(theirs.pid), "--release", "--lock", "x")
    assert done.returncode == 0


# Numbers that are used again


_REUSED = """
    mount -t proc proc /proc
    sleep 1000 & pid=$!
    LOCKERSH --for $pid --lock x || exit
    for keeper in $(grep -l keeps /proc/[0-9]*/cmdline | cut -d/ -f3); do kill -9 $keeper; done
    kill -9 $pid; wait $pid
    sleep 0.1
    echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid
    sleep 1000 & again=$!
    echo $pid $again
    LOCKERSH --for $again --release --lock x; echo $?
    LOCKERSH --for $again --print --lock y | head -1
    read line
"""


@pytest.mark.skipif(not nodes_can_be_made(), reason="a pid namespace takes root")
def test_another_process_of_the_same_number(site: Site) -> None:
    script = Script(site, _REUSED, "unshare --pid --mount --fork --kill-child sh")
    pid, again = script.says().split()
    if pid != again:
        pytest.skip("the number was not given again")
    assert [script.says(), script.says()] == ["69", "IPCLOCKER_LOCK=y"]
    script.end()
    for left in FOLDER.glob(f"{pid}.*"):
        left.unlink()  # of the keeper that was killed; nobody will ever look for it
    site.free("x", "y")  # the server may not see processes of that namespace
