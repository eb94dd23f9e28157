"""Locker as an object of Python: its signature, types, copies and pickles, its end, and the end of its process."""

from __future__ import annotations

import copy
import gc
import inspect
import multiprocessing
import os
import pickle
import pydoc
import re
import signal
import socket
import subprocess
import sys
import textwrap
import typing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Callable

import pytest

from ipclocker import IpclockerError, LockBusy, Locker, ServerRefused, UsageError
from ipclocker.lock.client.connection import wait_ready

from ...support import PROJECT
from ...support.fake_servers import ClassicServer
from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import DEADLINE, wait_for


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


def locker(server: Any, name: str = "x", **parameters: Any) -> Locker:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "connect_tries": 1, **parameters}
    return Locker(name, **given)


# Signature and parameters


@pytest.mark.parametrize("call", [Locker, Locker.lock, Locker.owner, Locker.acquire, Locker.ping, Locker.check])
def test_signatures_are_explicit(call: Callable[..., Any]) -> None:
    parameters = inspect.signature(call).parameters.values()
    assert not [each for each in parameters if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]


def test_the_signature_is_typed_and_has_the_defaults(server: ThreadServer) -> None:
    parameters = inspect.signature(Locker).parameters
    assert next(iter(parameters)) == "lock" and parameters["lease"].default == 0
    assert parameters.keys() <= typing.get_type_hints(Locker.__init__).keys()
    assert {"name", "token", "host", "port"} <= inspect.signature(Locker.check).parameters.keys()
    assert not inspect.signature(locker(server).ping).parameters
    shown = pydoc.render_doc(Locker, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    assert "ping(*, lock:" in shown and "check(name:" in shown and "lock(self, lock:" in shown
    for call in (Locker.lock, Locker.owner):
        assert typing.get_type_hints(call)
    for name in parameters:
        assert f"\n    {name}" in str(Locker.__doc__) or f", {name}" in str(Locker.__doc__), name


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"lock": 5}, "lock is 5: it takes a text, or several as a list"),
        ({"lock": ["a", 5]}, r"lock is \['a', 5\]"),
        ({"lock": b"x"}, "lock is b'x'"),
        ({"lock": None}, "lock is None"),
        ({"lock": "\ud800"}, r"lock is '\\ud800'"),
        ({"host": 5}, "host is 5"),
        ({"port": 1.5}, "port is 1.5: it takes a number, the name of a service"),
        ({"port": True}, "port is True"),
        ({"family": 5}, "family is 5: it takes a text"),
        ({"path": 5}, "path is 5: it takes a text"),
        ({"all": "yes"}, "all is 'yes': it takes True or False"),
        ({"hold": "1"}, "hold is '1': it takes a number of seconds"),
        ({"hold": float("nan")}, "hold is 'nan'"),
        ({"hold": 5, "timeout": 6}, "hold is '5', and timeout '6'"),
        ({"hold": 5, "lease": 6}, "a lock is held for the one or the other"),
        ({"lease": "1"}, "lease is '1'"),
        ({"wait": -1}, "wait is '-1'"),
        ({"wait": float("nan")}, "wait is 'nan'"),
        ({"block": "no"}, "block is 'no': it takes True or False"),
        ({"command": 5}, "command is 5: it takes a text"),
        ({"user": 5}, "user is 5"),
        ({"pid": "abc"}, "the pid 'abc'"),
        ({"pid": 1.5}, "the pid '1.5'"),
        ({"hostname": 5}, "hostname is 5"),
        ({"autounlock": "no"}, "autounlock is 'no'"),
        ({"destroy_unlock": 2}, "destroy_unlock is 2"),
        ({"connect_tries": "3"}, "connect_tries is '3': it takes a whole number"),
        ({"connect_delay": "3"}, "connect_delay is '3'"),
        ({"verbose": "x"}, "verbose is 'x'"),
        ({"print_down": 5}, "print_down is 5: it takes a function"),
        ({"print_retry": "x"}, "print_retry is 'x': it takes a function"),
        ({"wait_ready": 5}, "wait_ready is 5: it takes a function"),
        ({"lock": "a\nb"}, r"the lock name 'a\\nb' is empty or has white space"),
    ],
)
def test_a_value_of_a_wrong_type_is_one_sentence(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as problem:
        Locker(**parameters)
    assert isinstance(problem.value, ValueError) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda lock: lock.check(5, 1), "lock is 5"),
        (lambda lock: lock.check("x", "4"), "token is '4': it takes a whole number"),
        (lambda lock: lock.check("x", None), "token is None"),
        (lambda lock: lock.check("x", -4), "token is -4"),
        (lambda lock: lock.check("x", 2**70), "token is 1180591620717411303424"),
        (lambda lock: lock.dead_pid(5, 1), "host is 5: it takes a text"),
        (lambda lock: lock.dead_pid("far away", 1), "host is 'far away': it takes one word"),
        (lambda lock: lock.dead_pid("far", "x"), "the pid 'x'"),
        (lambda lock: lock(5), "a Locker was called with 5: it takes a function"),
    ],
)
def test_so_is_one_that_a_method_gets(server: ThreadServer, call: Callable[[Any], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call(locker(server))


def test_owner_asks_about_another_lock_and_changes_nothing(server: ThreadServer) -> None:
    lock, other = locker(server, "a"), locker(server, "b")
    with lock, other:
        assert lock.owner("b") == server.holders()["b"] and lock.lock_name() == "a"
        assert lock.owner() == server.holders()["a"]
        with pytest.raises(UsageError):
            lock.owner(lock=5)  # type: ignore[arg-type]
    with lock:
        assert list(server.holders()) == ["a"]


PROGRAM = """
    from typing import Optional
    from ipclocker import Locker, LockBusy
    def use(lock: Locker) -> float:
        status = Locker.ping_status(host="a", port=1)
        flag: bool = lock.ping() and Locker.ping(host="a") and Locker.check("x", 5, host="a") and lock.check("x", 5)
        word: str = status["status"] + lock.ping_status()["status"]
        owner: Optional[str] = lock.owner("b")
        got: bool = lock.acquire(timeout=None)
        with lock as same:
            token: Optional[int] = same.token
        return lock.until
    @Locker("x", hold=5, wait=1)
    def run(number: int) -> str:
        return str(number)
    text: str = run(5)
    async def use_async(lock: Locker) -> bool:
        async with lock:
            return await lock.acquire_async()
"""
MISTAKES = {
    "Locker('x', hodl=5)": "hodl",
    "Locker('x').lock(blok=True)": "blok",
    "Locker('x').ping('y')": "Too many arguments",
    "Locker.ping(hots='a')": "hots",
    "Locker.check('x')": "token",
    "from ipclocker import Lokcer": "Lokcer",
    "Locker(5)": "arg-type",
    "run('5')": "arg-type",
}


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_a_type_checker_understands_it(tmp_path: Path, version: str) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    text = "from __future__ import annotations\n" + textwrap.dedent(PROGRAM)
    good.write_text(text)
    bad.write_text(text + "\n".join(MISTAKES) + "\n")
    options = ["--strict", f"--python-version={version}", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    command = [sys.executable, "-m", "mypy", *options]
    environment = {**os.environ, "MYPYPATH": str(PROJECT)}
    right = subprocess.run([*command, str(good)], env=environment, capture_output=True, text=True, check=False)
    assert right.returncode == 0, right.stdout
    wrong = subprocess.run([*command, str(bad)], env=environment, capture_output=True, text=True, check=False)
    said = [line for line in wrong.stdout.splitlines() if "error:" in line and "bad.py" in line]
    for number, (mistake, word) in enumerate(MISTAKES.items(), len(text.splitlines()) + 1):
        assert any(f":{number}:" in line and word in line for line in said), (mistake, wrong.stdout)


# As an object


def test_repr(server: ThreadServer) -> None:
    lock = locker(server)
    assert repr(lock) == "<Locker 'x' not held>"
    with lock:
        assert re.fullmatch(r"<Locker 'x' held token=\d+>", repr(lock))


def test_it_is_a_decorator(server: ThreadServer) -> None:
    lock = locker(server)

    @lock
    def add(one: int, two: int = 5) -> int:
        """Add."""
        assert server.holders()
        return one + two if one else add(1)

    assert add(2) == 7 and add(0) == 6 and add.__doc__ == "Add." and server.holders() == {}
    with pytest.raises(TypeError, match="generator"):

        @lock
        def each() -> Iterator[int]:
            yield 1


def test_there_are_no_copies(server: ThreadServer) -> None:
    lock = locker(server)
    with lock:
        for make in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="make another Locker"):
                make(lock)
        gc.collect()
        assert server.holders()


def lock_in_child(lock: Locker) -> tuple[bool, bool]:
    return lock.locked(), lock.acquire(False)


def raise_refused(number: int) -> None:
    raise (ServerRefused("word", "host") if number else LockBusy("busy"))


def test_a_pickle_is_its_parameters() -> None:
    with Lockerd() as server:
        lock = locker(server, lease=30)
        same = pickle.loads(pickle.dumps(lock))
        assert same.settings.given == lock.settings.given
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            with lock:
                assert pool.submit(lock_in_child, lock).result(60) == (False, False)
            assert pool.submit(lock_in_child, lock).result(60) == (False, True)
            for number, kind in ((0, LockBusy), (1, ServerRefused)):
                with pytest.raises(kind):
                    pool.submit(raise_refused, number).result(60)
        wait_for(lambda: not server.holders(), "what the child of a pool had is free when that has ended")


def test_one_that_nobody_refers_to_warns_and_unlocks(server: ThreadServer) -> None:
    with pytest.warns(ResourceWarning, match=r"<Locker 'x' held token=\d+> was not released"):
        locker(server).acquire()
    wait_for(lambda: not server.holders())


@pytest.mark.parametrize("leave", [Locker.release, Locker.unlock])
def test_a_socket_that_the_collector_closes_in_the_midst_of_a_release(
    server: ThreadServer, leave: Callable[[Locker], object]
) -> None:
    """In a circle it may come to the Locker, which is then released by a thread, before it comes to the socket."""
    to_close: list[bool] = []

    def wait(sock: socket.socket | None, events: int, deadline: float) -> bool:
        if sock is not None and to_close:
            to_close.clear()
            sock.close()
        return wait_ready(sock, events, deadline)

    lock = locker(server, wait_ready=wait)
    assert lock.acquire()
    to_close.append(True)
    leave(lock)
    assert not to_close and server.holders() == {}
    assert lock.acquire() and server.holders()
    lock.release()


def test_what_a_way_to_wait_raises_is_raised(server: ThreadServer) -> None:
    def wait(sock: socket.socket | None, events: int, deadline: float) -> bool:
        if failing:
            raise ValueError("of its own")
        return wait_ready(sock, events, deadline)

    failing: list[bool] = []
    lock = locker(server, wait_ready=wait)
    assert lock.acquire()
    failing.append(True)
    with pytest.raises(ValueError, match="of its own"):
        lock.release()
    failing.clear()
    lock.unlock()
    assert server.holders() == {}


def test_a_lease_that_can_not_be_renewed_is_not_held() -> None:
    """In a process of its own, in which there is no thread that renews leases already."""
    program = """
        import os, sys, threading
        from unittest import mock
        from ipclocker import Locker
        lock = Locker("x", host="127.0.0.1", port=int(sys.argv[1]), lease=30)
        for what, problem in (("threading.Thread.start", RuntimeError("none")), ("os.pipe", OSError(24, "none"))):
            try:
                with mock.patch(what, side_effect=problem):
                    lock.acquire()
            except type(problem):
                print(lock.locked(), lock.lock_list())
        with lock:
            print(lock.locked())
    """
    with Lockerd() as server:
        command = [sys.executable, "-c", textwrap.dedent(program), str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.stdout == "False []\nFalse []\nTrue\n", done.stderr


def test_without_descriptors_nothing_is_left() -> None:
    program = """
        import os, resource, sys
        from ipclocker import Locker, LockLost
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(12):
            lock = Locker("x", host="127.0.0.1", port=int(sys.argv[1]), lease=30, connect_tries=1)
            used = max(map(int, os.listdir("/proc/self/fd")))
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, most[1]))
            try:
                lock.acquire()
            except OSError:
                assert not lock.locked()
            resource.setrlimit(resource.RLIMIT_NOFILE, most)
            lock.unlock()
            print(lock.locked(), lock.lock_list())
    """
    with Lockerd() as server:
        command = [sys.executable, "-c", textwrap.dedent(program), str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.stdout.splitlines() == ["False []"] * 12, done.stderr


# The end of its process


def hold_in_process(server: Lockerd, name: str = "x", parameters: str = "") -> subprocess.Popen[str]:
    program = f"""
        from ipclocker import Locker
        lock = Locker("{name}", host="127.0.0.1", port={server.port}, {parameters})
        assert lock.acquire()
        print("held", flush=True)
        input()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_lock_of_a_killed_process_is_free() -> None:
    with Lockerd() as server, hold_in_process(server) as process:
        process.kill()
        wait_for(lambda: not server.holders(), "the server looks for it")


@pytest.mark.parametrize(
    "parameters", ["autounlock=False", "user='me'", "pid=1", "hostname='far'", "destroy_unlock=False", "lease=1000"]
)
def test_a_lock_that_is_left_to_others_is_not(parameters: str) -> None:
    with Lockerd() as server, hold_in_process(server) as sign, hold_in_process(server, "y", parameters) as process:
        process.kill()
        sign.kill()
        wait_for(lambda: list(server.holders()) == ["y"], "the end of the other one")


def hold_and_end(port: int, kill: bool) -> None:
    lock = Locker("x", host="127.0.0.1", port=port)
    lock.acquire()
    globals()["kept"] = lock
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_multiprocessing_child_that_ends_frees_its_own(kill: bool, method: str) -> None:
    with Lockerd() as server:
        mine = locker(server, "mine")
        mine.acquire()
        context: Any = multiprocessing.get_context(method)
        child = context.Process(target=hold_and_end, args=(server.port, kill))
        child.start()
        child.join(DEADLINE)
        wait_for(lambda: list(server.holders()) == ["mine"])
        mine.release()


@pytest.mark.parametrize("autounlock", [None, True])
def test_a_classic_server_is_asked_for_no_look_up_that_nobody_wants(autounlock: bool | None) -> None:
    """One ends when it can't look up a hostname."""
    lines: list[bytes] = []
    with ClassicServer() as server:
        from ipclocker.lock.client.connection import ServerConnection

        ServerConnection.trace = lambda way, data: lines.extend(data.split(b"\n"))
        try:
            with locker(server, user=None, autounlock=autounlock):
                pass
        except IpclockerError:
            pass
        finally:
            ServerConnection.trace = None
    assert (b"autounlock 1" in lines) == bool(autounlock)
    assert (b"process 1" in lines) == (autounlock is None)
