"""Processes of other pid namespaces of this kernel: real ones, as containers have them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ipclocker.pid import namespaces
from ipclocker.pid.namespaces import NamespaceSearch
from ipclocker.process.identity import ProcessIdentity
from ipclocker.process.viewpoint import HOST_PIDNS, own_view

from ..support import PROJECT
from ..support.processes import in_no_namespace
from ..support.waiting import wait_for

pytestmark = pytest.mark.skipif(in_no_namespace() is None, reason="it takes root in the first pid namespace")
LONG_AGO = 60.0  # seconds, for a holder that was not heard of since


class Container(NamedTuple):
    """A pid namespace with one process, whose number there is `inside.pid`, and its own parent outside."""

    inside: ProcessIdentity
    outside: int
    unshare: subprocess.Popen[str]

    def kill(self) -> None:
        os.kill(self.outside, 9)
        self.unshare.wait()


@contextlib.contextmanager
def container(*options: str) -> Iterator[Container]:
    """A process in a pid namespace of its own, which tells its identity as lockersh would."""
    tell = (
        "import os, sys; from ipclocker.process.identity import identify; print(*identify(os.getpid())[:5]); "
        "sys.stdout.flush(); sys.stdin.read()"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", *options, sys.executable, "-c", tell]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as unshare:
        assert unshare.stdout is not None and unshare.stdin is not None
        pid, start, boot, pidns, timens = unshare.stdout.readline().split()
        inside = ProcessIdentity(int(pid), int(start), boot, int(pidns), int(timens))
        with open(f"/proc/{unshare.pid}/task/{unshare.pid}/children") as file:
            yield Container(inside, int(file.read()), unshare)
        unshare.stdin.close()


def settled(search: NamespaceSearch, process: ProcessIdentity) -> bool | None:
    """The answer once there is one: a search may not look at all processes at any time."""
    answers: list[bool | None] = [None]

    def ask() -> bool:
        answers.append(search.exists(process, 0.0))
        return answers[-1] is not None

    wait_for(ask, "an answer")
    return answers[-1]


def test_a_process_of_a_container_exists_until_it_ends() -> None:
    search = NamespaceSearch(own_view())
    with container() as one:
        assert one.inside.pid == 1
        assert settled(search, one.inside) is True
        assert settled(search, one.inside) is True, "and when it is known already"
        assert settled(NamespaceSearch(own_view()), one.inside._replace(start=5)) is False, "it had the number before"
        assert settled(search, one.inside._replace(pid=4711)) is False
        one.kill()
        assert settled(search, one.inside) is False


def test_two_containers_use_the_same_numbers() -> None:
    search = NamespaceSearch(own_view())
    with container() as one, container() as other:
        assert one.inside.pid == other.inside.pid == 1
        one.kill()
        assert settled(search, one.inside) is False
        assert settled(search, other.inside) is True


def test_in_another_time_namespace_the_number_alone_counts() -> None:
    search = NamespaceSearch(own_view())
    with container("--time", "--boottime", "1000000") as one:
        assert one.inside.timens != own_view().timens
        assert settled(search, one.inside) is True
        one.kill()
        assert settled(search, one.inside) is False


def test_one_look_at_all_serves_for_those_that_were_heard_of_before_it() -> None:
    now = 1000.0
    search = NamespaceSearch(own_view(), lambda: now)
    gone = ProcessIdentity(5, 50, own_view().boot, 1)
    assert search.exists(gone, LONG_AGO) is False
    search._look = search._look._replace(pids={2: [os.getpid()]})
    assert search.exists(gone._replace(pidns=3), LONG_AGO) is False, "from the same look"
    now += 0.5
    assert search.exists(gone._replace(pidns=3), 0.6) is False
    search._next_look = 2000.0
    assert search.exists(gone._replace(pidns=3), 0.4) is None, "it was heard of after that look"
    now += 0.6
    assert search.exists(gone, LONG_AGO) is None, "too old a look"


def test_who_may_not_look_into_every_process_can_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    view = own_view()
    gone = ProcessIdentity(5, 50, view.boot, 1)
    assert NamespaceSearch(view).exists(gone, LONG_AGO) is False
    assert NamespaceSearch(view._replace(pidns=HOST_PIDNS - 9)).exists(gone, LONG_AGO) is None
    stat = os.stat

    def deny(path: str) -> os.stat_result:
        if path == f"/proc/{os.getpid()}/ns/pid":
            raise PermissionError
        return stat(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", deny)
        assert NamespaceSearch(view).exists(gone, LONG_AGO) is None
    monkeypatch.setattr(namespaces, "_may_see_all", lambda: False)
    assert NamespaceSearch(view).exists(gone, LONG_AGO) is None


def test_root_of_another_user_namespace_can_not_tell_who_is_gone() -> None:
    """It has all capabilities there, and a /proc with hidepid shows it its own processes only, without a refusal."""
    ask = (
        "import ctypes, os; from ipclocker.pid.namespaces import NamespaceSearch; "
        "from ipclocker.process.identity import ProcessIdentity; from ipclocker.process.viewpoint import own_view; "
        "view = own_view(); process = ProcessIdentity({pid}, {start}, view.boot, {pidns}); "
        "os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3); "
        "assert ctypes.CDLL(None).unshare(0x10000000) == 0; "  # CLONE_NEWUSER
        "print(NamespaceSearch(view).exists(process, 60.0))"
    )
    with container() as one:
        code = ask.format(pid=one.inside.pid, start=one.inside.start, pidns=one.inside.pidns)
        hidden = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
        words = ["unshare", "-m", "sh", "-c", hidden, "sh", sys.executable, "-c", code]
        done = subprocess.run(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert done.stdout == "None\n"
