"""SIGHUP to servers whose file was replaced: another version goes on where the old one stopped, or the old one does."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from ipclocker.zipapp.unpack import LAUNCHER, build_of

from ..support.processes import children, execution, is_alive
from ..support.servers import Peer
from ..support.site import Site, new_site
from ..support.waiting import wait_for

Change = Callable[[str, str], str]  # of a module's name and text


def write_version(built: Path, target: Path, change: Change) -> None:
    """Write another version of the built file in the place of `target`, at once."""
    with zipfile.ZipFile(built) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    prefix = "site-packages/"
    for name in contents:
        if name.startswith(prefix) and name.endswith(".py"):
            contents[name] = change(name[len(prefix) :], contents[name].decode()).encode()
    modules = {name[len(prefix) :]: text for name, text in contents.items() if name.startswith(prefix)}
    modules = {name: text for name, text in modules.items() if name.endswith(".py")}
    launcher = re.sub(rb'^BUILD = ".*?"', b'BUILD = "%s"' % build_of(modules).encode(), modules[LAUNCHER], flags=re.M)
    contents["__main__.py"] = contents[prefix + LAUNCHER] = launcher
    new = target.with_suffix(".new")
    with new.open("wb") as file:
        file.write(built.read_bytes().split(b"\n", 1)[0] + b"\n")
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in contents.items():
                archive.writestr(name, text)
    new.chmod(0o755)
    new.replace(target)


def replaced(module: str, old: str, new: str) -> Change:
    """A change of one module."""

    def change(name: str, text: str) -> str:
        if name != module:
            return text
        assert old in text
        return text.replace(old, new)

    return change


def version(number: str) -> Change:
    return replaced("ipclocker/version.py", 'VERSION = "', f'VERSION = "{number}" or "')


class Host:
    """A host with the file, which tests replace."""

    def __init__(self, site: Site, built: Path) -> None:
        self.site = site
        self.built = built
        self.file = site.folder / "ipclocker"
        shutil.copy(built, self.file)
        site.file = str(self.file)

    def put(self, change: Change) -> None:
        write_version(self.built, self.file, change)

    def version(self) -> str:
        return re.search(rb"^version (\S+)", self.site.ask(b"VERSION"), re.M)[1].decode()  # type: ignore[index]

    def serves(self, number: str) -> None:
        wait_for(self.site.answers, "an answer")
        wait_for(lambda: self.version() == number, f"version {number}")

    def put_and_hang_up(self, pid: int, number: str) -> None:
        self.put(version(number))
        os.kill(pid, signal.SIGHUP)
        self.serves(number)


@pytest.fixture
def host(built_file: Path, cache: Path) -> Iterator[Host]:
    with new_site(built_file, cache) as site:
        yield Host(site, built_file)


def remembers(host: Host) -> list[str]:
    return ["--state", str(host.site.folder / "state.db")]


def token_of(answer: list[str]) -> int:
    return next(int(line.split()[1]) for line in answer if line.startswith("token "))


def take(host: Host, name: str) -> int:
    """Take a lock and leave it held; its token."""
    peer = Peer(host.site.environment["IPCLOCKER_PORT"])
    try:
        return token_of(peer.ask(f"user somebody;locks {name};token 1;LOCK"))
    finally:
        peer.close()


# What takes over


@pytest.mark.parametrize("keeps", [True, False])
def test_in_the_foreground_the_same_process_is_the_next_version(host: Host, keeps: bool) -> None:
    server = host.site.serve(*(remembers(host) if keeps else []))
    token = take(host, "x")
    for number in ("9.0.1", "9.0.2"):
        host.put_and_hang_up(server.pid, number)
        server.says(f"version {number} (build ")
        assert host.site.locks() == ({"x": "somebody"} if keeps else {})
        later = take(host, f"y{number}")
        host.site.free(f"y{number}")
        assert later > token
        token = later
    server.process.terminate()
    assert server.end() == 0
    names = {path.name for path in host.site.folder.iterdir()}
    assert "lockerd" not in names and not [name for name in names if "trial" in name]


def test_in_the_background_monitor_and_server_are_the_next_version(host: Host) -> None:
    site = host.site
    words = ["--pid-file", "pid", "--log-file", "log", "--state", "state.db"]  # relative names stay what they were
    done = site.run("lockerd", *words, cwd=site.folder)
    assert (done.returncode, done.stderr) == (0, "")
    monitor = int((site.folder / "pid").read_text())
    (server,) = children(monitor)
    site.ends_with(server, monitor)
    take(host, "x")
    before = execution(monitor)
    host.put_and_hang_up(monitor, "9.0.1")
    wait_for(lambda: execution(monitor) != before, "the monitor to be the next version, too")
    assert children(monitor) == [server] and int((site.folder / "pid").read_text()) == monitor
    log = site.folder / "log"
    done = site.run("lockerd", *words, cwd=site.folder)
    assert done.returncode == 64 and "already running" in done.stderr
    # The next servers are from the monitor's memory, also when the file is gone.
    for _ in range(2):
        os.kill(server, signal.SIGKILL)
        (server,) = wait_for(lambda server=server: set(children(monitor)) - {server}, "another server")  # type: ignore[misc]
        site.ends_with(server)
        host.serves("9.0.1")
        assert site.locks() == {"x": "somebody"}
        host.file.unlink(missing_ok=True)
    os.kill(monitor, signal.SIGTERM)
    wait_for(lambda: not is_alive(monitor), "the end")
    assert not (site.folder / "pid").exists() and "fault" not in log.read_text()


def test_the_service_manager_hears_of_it(host: Host) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(host.site.folder / "notify"))
        manager.settimeout(60)
        host.site.environment |= {"NOTIFY_SOCKET": str(host.site.folder / "notify"), "WATCHDOG_USEC": "600000000"}
        server = host.site.serve()
        heard = [manager.recv(9999).decode().split("\n")[0] for _ in range(2)]
        host.put_and_hang_up(server.pid, "9.0.1")
        heard += [manager.recv(9999).decode().split("\n")[0] for _ in range(3)]
        assert heard == ["READY=1", "WATCHDOG=1", "RELOADING=1", "READY=1", "WATCHDOG=1"]


# What can't take over


def damage(host: Host) -> None:
    data = host.file.read_bytes()
    host.file.write_bytes(data[: len(data) // 2])


def exit_at_once(host: Host) -> None:
    host.file.write_text("#!/bin/sh\necho no; exit 1\n")


def remove(host: Host) -> None:
    host.file.unlink()


def change(module: str, old: str, new: str) -> Callable[[Host], None]:
    return lambda host: host.put(replaced(f"ipclocker/{module}", old, new))


SQLITE = "lock/storage/sqlite.py"
UNFIT = {
    "damaged": (damage, "SyntaxError"),
    "another program": (exit_at_once, "SyntaxError"),
    "removed": (remove, "can't open file"),
    "fails at once": (change("__main__.py", "import sys", "import no_such_module"), "no_such_module"),
    "misses an option": (change("cli/lockerd.py", "state: str |", "no_state: str |"), "--state"),
    "older": (
        change(SQLITE, "_VERSION = ", "_VERSION = 1 or "),
        r"state\.db is of version \d+, and this lockerd knows 1",
    ),
    "can't read": (change(SQLITE, "if len(tokens) != 1 or", "if True or"), r"state\.db is damaged"),
    "too old a Python": (change("zipapp/launcher.py", "(3, 9)", "(9, 9)"), "is too old"),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_a_file_that_cant_serve_leaves_the_old_version_as_it_is(host: Host, unfit: str) -> None:
    server = host.site.serve(*remembers(host))
    before = host.version()
    holder = Peer(host.site.environment["IPCLOCKER_PORT"])
    holder.ask("user somebody;locks x;session abc;LOCK")
    make, reason = UNFIT[unfit]
    make(host)
    server.process.send_signal(signal.SIGHUP)
    server.says("can't take over, and version ")
    assert re.search(f"serves on: .*({reason})", server.err), server.err
    assert host.version() == before
    assert holder.ask("LOCK_LIST") == ["lock x somebody"], "not even a connection is lost"
    holder.close()
    assert not [path for path in host.site.folder.iterdir() if "trial" in path.name]
    shutil.copy(host.built, host.file)
    server.process.send_signal(signal.SIGHUP)
    server.says("is started again")
    wait_for(host.site.answers, "an answer")
    assert host.site.locks() == {"x": "somebody"}
    server.process.terminate()
    assert server.end() == 0


def test_a_file_that_is_damaged_when_the_server_has_started_from_it_leaves_the_monitor_as_it_is(host: Host) -> None:
    site = host.site
    done = site.run("lockerd", "--pid-file", "pid", "--log-file", "log", *remembers(host), cwd=site.folder)
    assert (done.returncode, done.stderr) == (0, "")
    monitor = int((site.folder / "pid").read_text())
    (server,) = children(monitor)
    site.ends_with(server, monitor)
    take(host, "x")
    report = "                was_ready = True\n"
    host.put(
        replaced("ipclocker/daemon/daemonize.py", report, report + f"{16 * ' '}os.truncate({str(host.file)!r}, 9)\n")
    )
    os.kill(monitor, signal.SIGHUP)
    stays = "the file can't be started any more, and the monitor stays the version before: "
    wait_for(lambda: stays in (site.folder / "log").read_text(), "the monitor to say so")
    os.kill(server, signal.SIGKILL)
    (server,) = wait_for(lambda: set(children(monitor)) - {server}, "another server")
    site.ends_with(server)
    wait_for(site.answers, "an answer")
    assert site.locks() == {"x": "somebody"}
    os.kill(monitor, signal.SIGTERM)
    wait_for(lambda: not is_alive(monitor), "the end")


def _full_disk(state: Path) -> None:
    """Let there be a folder where the copy of the state is to be, as if that could not be written."""
    Path(f"{state}.trial").mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_full_disk, "no copy of the state can be made to try it with"),
        (Path.unlink, "state.db is gone from its place"),  # the next server would make an empty one: a second holder
    ],
)
def test_a_state_that_can_not_be_copied_leaves_the_old_version_as_it_is(
    host: Host, spoil: Callable[[Path], None], said: str
) -> None:
    server = host.site.serve(*remembers(host))
    take(host, "x")
    spoil(host.site.folder / "state.db")
    server.process.send_signal(signal.SIGHUP)
    server.says(said)
    assert host.site.locks() == {"x": "somebody"}


# Never two that serve, and never none


class Hammer:
    """Clients in threads that take one lock and give it back, again and again, and look whether anybody else has it."""

    def __init__(self, address: str, clients: int, locks_outlive_it: bool) -> None:
        self._address = address
        self._exclusive = locks_outlive_it
        self._mutex = threading.Lock()
        self._over = threading.Event()
        self._inside: set[int] = set()
        self._last_token = 0
        self.grants = 0
        self.problems: list[str] = []
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        try:
            while not self._over.is_set():
                session = f"{number}.{self.grants}.{time.monotonic_ns()}"
                token = self._until_answered(f"user u{number};session {session};locks x;token 1;LOCK")
                if token is not None:
                    self._hold(number, token)
                self._until_answered(f"user u{number};session {session};locks x;UNLOCK")
        except OSError as problem:
            self.problems.append(repr(problem))

    def _hold(self, number: int, token: int) -> None:
        with self._mutex:
            if self._inside and self._exclusive:
                self.problems.append(f"{number} is in beside {self._inside}")
            if token <= self._last_token:
                self.problems.append(f"token {token} came behind {self._last_token}")
            self._inside.add(number)
            self._last_token = token
            self.grants += 1
        time.sleep(0)  # for the others to run
        with self._mutex:
            self._inside.remove(number)

    def _until_answered(self, request: str) -> int | None:
        """Ask until there is a whole answer; the token in it. Raises OSError if a connection is refused."""
        while True:
            with contextlib.closing(Peer(self._address)) as peer, contextlib.suppress(EOFError, ConnectionError):
                answer = peer.ask(request)
                return next((int(line.split()[1]) for line in answer if line.startswith("token ")), None)


def last_start(log: Path) -> str:
    """What the log says of the start behind which there is no other."""
    return log.read_text().rpartition("listening on")[2]


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("foreground", [True, False])
def test_a_crowd_of_clients_notices_no_hang_up(host: Host, keeps: bool, foreground: bool) -> None:
    """Nobody is refused, nobody gets in beside another, and tokens grow, whichever version serves."""
    site = host.site
    versions = [site.folder / number for number in ("9.0.1", "9.0.2")]
    for path in versions:
        write_version(host.built, path, version(path.name))
    log = site.folder / "log"
    words = ["lockerd", "--port", "0", "--host", "127.0.0.1", "--log-file", str(log)]
    words += ["--pid-file", str(site.folder / "pid")]
    words += remembers(host) if keeps else ["--state", "none"]
    if foreground:
        server = site.start(*words, "--nofork")
        wait_for(lambda: log.exists() and "listening on" in log.read_text(), "lockerd")
    else:
        assert site.run(*words).returncode == 0
    pid = int((site.folder / "pid").read_text())
    site.ends_with(pid, *children(pid))
    address = re.search(r"listening on ([^;]*)", log.read_text())[1]  # type: ignore[index]
    with Hammer(address, 4, keeps) as hammer:
        for count in range(11):
            shutil.copy(versions[count % 2], site.folder / "next")
            (site.folder / "next").replace(host.file)
            for _ in range(1 + count % 3):  # some while another one is under way
                before = hammer.grants
                os.kill(pid, signal.SIGHUP)
                wait_for(lambda before=before: hammer.grants > before + 20, "more grants")  # type: ignore[misc]
            number = f"version {versions[count % 2].name} "
            wait_for(lambda number=number: number in last_start(log), number)  # type: ignore[misc]
    assert hammer.problems == []
    assert "died" not in log.read_text() and "fault" not in log.read_text()
    os.kill(pid, signal.SIGTERM)
    if foreground:
        assert server.end() == 0
    wait_for(lambda: not is_alive(pid), "the end")


# pidstatd


def test_a_pid_server_goes_on_as_the_next_version_and_loses_no_question(host: Host) -> None:
    words = ["pidstatd", "--nofork", "--host", "127.0.0.1", "--port", "0"]
    server = host.site.start(*words)
    server.says("listening on")
    port = int(re.search(r"listening on 127.0.0.1:(\d+)", server.err)[1])  # type: ignore[index]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(60)
        for count, number in enumerate(["9.0.1", "9.0.2"]):
            host.put(version(number))
            server.process.send_signal(signal.SIGHUP)
            while f"version {number}" not in server.err:  # questions all the time, and each has its answer
                client.send(b"PIDR %d h%d\n" % (os.getpid(), count))
                assert client.recv(999) == b"EXIS %d 1 h%d" % (os.getpid(), count)
        damage(host)
        server.process.send_signal(signal.SIGHUP)
        server.says("can't take over, and version 9.0.2")
        client.send(b"PIDR %d h\n" % os.getpid())
        assert client.recv(999).startswith(b"EXIS")
    server.process.terminate()
    assert server.end() == 0


def test_a_pid_server_hands_its_unix_socket_over(host: Host) -> None:
    path = host.site.folder / "pidstatd"
    server = host.site.start("pidstatd", "--nofork", "--port", str(path))
    server.says("listening on")
    before = path.stat().st_ino
    host.put(version("9.0.1"))
    server.process.send_signal(signal.SIGHUP)
    server.says("version 9.0.1")
    assert path.stat().st_ino == before
    server.process.terminate()
    assert server.end() == 0
    assert not path.exists()
