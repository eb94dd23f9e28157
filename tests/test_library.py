"""What holds for all classes of the library: their signatures, their parameters, and how they are closed."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path
from threading import Thread
from typing import Any, Callable, Union

import pytest

from ipclocker import LockServer, PidServer, PidStat, ProcManager, StateError, Supervisor, UsageError

from .support import PROJECT
from .support.waiting import DEADLINE, wait_for

Server = Union[LockServer, PidServer]
MAKERS: list[Callable[..., Any]] = [
    lambda **more: LockServer("127.0.0.1", 0, **more),
    lambda **more: PidServer(0, **more),
]
BOTH = pytest.mark.parametrize("make", MAKERS, ids=["LockServer", "PidServer"])


def is_served(server: Server) -> bool:
    free = server._serving.acquire(blocking=False)
    if free:
        server._serving.release()
    return not free


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("kind", [LockServer, PidServer, PidStat, ProcManager, Supervisor])
@pytest.mark.parametrize("name", ["__init__", "start_server", "pm_manage"])
def test_signatures_are_explicit_and_typed(kind: type, name: str) -> None:
    method = getattr(kind, name, None)
    if method is None:
        return
    parameters = inspect.signature(method).parameters.values()
    assert not [each for each in parameters if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    assert {each.name for each in parameters} - {"self"} <= typing.get_type_hints(method).keys()
    if name == "__init__":
        assert list(inspect.signature(kind).parameters.values()) == list(parameters)[1:]


@pytest.mark.parametrize(
    ("kind", "parameters", "problem"),
    [
        (PidStat, {"host": 5}, "host is 5: it takes the name or address of a host"),
        (PidStat, {"port": [1]}, r"the port '\[1\]' is neither a number"),
        (PidStat, {"tries": "5"}, "tries is '5': it takes a whole number, 1 or more"),
        (PidStat, {"tries": True}, "tries is True: it takes a whole number"),
        (PidStat, {"tries": 0}, "tries is 0: it takes a whole number"),
        (PidStat, {"trace": "x"}, "trace is 'x': it takes a function"),
        (PidServer, {"port": 1.5}, "the port '1.5' is neither a number"),
        (PidServer, {"host": 5}, "host is 5: it takes the name or address of a host, or a list of them"),
        (PidServer, {"host": [None]}, r"host is \[None\]: it takes the name or address"),
        (PidServer, {"sockets": 5}, "sockets is 5: it takes a list of sockets"),
        (LockServer, {"host": None}, "host is None: it takes the name or address of a host"),
        (LockServer, {"host": []}, r"host is \[\]: it takes the name or address of a host"),
        (LockServer, {"port": "nosuch"}, "the port 'nosuch' is neither a number"),
        (LockServer, {"family": 5}, "the family '5' is not known"),
        (LockServer, {"path": 5}, "path is 5: it takes the name of a UNIX socket"),
        (LockServer, {"state": 5}, "state is 5: it takes the name of a file"),
        (LockServer, {"state_dir": 5}, "state_dir is 5: it takes the name of a folder"),
        (LockServer, {"sockets": ["x"]}, r"sockets is \['x'\]: it takes a list of sockets"),
        (LockServer, {"idle_timeout": "60"}, "idle_timeout is '60': it takes a number of seconds, 0 or more"),
        (LockServer, {"idle_timeout": float("nan")}, "idle_timeout is nan: it takes a number of seconds"),
        (LockServer, {"idle_timeout": -1}, "idle_timeout is -1: it takes a number of seconds"),
        (LockServer, {"idle_timeout": None}, "idle_timeout is None: it takes a number of seconds"),
        (LockServer, {"host": object}, "host is <class 'object'>: it takes"),
        (
            LockServer,
            {"path": list(range(1000))},
            r"path is \[0, 1, 2, .{,90}\.\.\.: it takes the name of a UNIX socket",
        ),
    ],
)
def test_values_that_mean_nothing(kind: Callable[..., Any], parameters: dict[str, Any], problem: str) -> None:
    before = descriptors()
    with pytest.raises(UsageError, match=problem):
        kind(**parameters)
    assert descriptors() == before


def test_what_pid_stat_is_asked() -> None:
    with PidStat() as stat:
        asks: list[Callable[..., object]] = [stat.pid_request, stat.pid_request_recv, stat.ping_status]
        for ask in asks:
            with pytest.raises(UsageError, match="host is 5: it takes the name or address of a host"):
                ask(host=5, pid=1)
            with pytest.raises(UsageError, match=r"the pid '\[1\]' is not a positive number"):
                ask(pid=[1])
        for timeout in ("5", float("nan"), True):
            with pytest.raises(UsageError, match=f"timeout is {timeout!r}: it takes a number of seconds"):
                stat.recv_stat(timeout)  # type: ignore[arg-type]


@BOTH
def test_a_server_is_closed_at_the_end_of_a_with(make: Callable[..., Server]) -> None:
    before = descriptors()
    with make() as server:
        assert server.addresses
        assert descriptors() > before
    assert descriptors() == before
    server.close()
    server.close()
    with pytest.raises(UsageError, match="start_server was called after the server was closed"):
        server.start_server()
    assert descriptors() == before


@BOTH
def test_it_is_closed_as_well_if_the_body_fails(make: Callable[..., Server]) -> None:
    before = descriptors()
    with pytest.raises(KeyError), make():
        raise KeyError
    assert descriptors() == before


@BOTH
def test_one_that_serves_in_a_thread_is_ended(make: Callable[..., Server]) -> None:
    before = descriptors()
    with make() as server:
        thread = Thread(target=server.start_server)
        thread.start()
        wait_for(lambda: is_served(server))
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert descriptors() == before


def test_close_after_a_constructor_that_failed(tmp_path: Path) -> None:
    class Own(LockServer):
        def __init__(self, **parameters: Any) -> None:
            try:
                super().__init__("127.0.0.1", 0, **parameters)
            except (UsageError, StateError):
                self.close()
                self.close()
                raise

    (tmp_path / "state").write_text("no database" * 1000)
    before = descriptors()
    for parameters in ({"idle_timeout": "x"}, {"port": "nosuch"}, {"state": str(tmp_path / "state")}):
        with pytest.raises((UsageError, StateError, TypeError)):
            Own(**parameters)
    assert descriptors() == before


def test_the_quiet_path_of_clients_imports_no_logging() -> None:
    program = "from ipclocker import Locker, PidStat; PidStat(); import sys; print('logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
