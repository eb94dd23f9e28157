"""Whether a process is still there, in three values, on real processes."""

from __future__ import annotations

import os

import pytest

from ipclocker.net.address import own_host_name
from ipclocker.process import identity
from ipclocker.process.identity import ProcessIdentity, exists, identify, is_own, own_boot, own_pidns

from ..support.processes import NO_PID, alive, gone, half_zombie, zombie


def test_a_process_that_lives() -> None:
    with alive() as process:
        assert exists(process.pid)
        me = identify(process.pid)
        assert is_own(me) and exists(me.pid, me.start)
    assert exists(process.pid) is False


def test_processes_that_do_not() -> None:
    assert exists(gone()) is False
    assert exists(NO_PID) is False
    assert exists(2**31) is False
    assert exists(10**30) is False


@pytest.mark.parametrize("pid", [0, -1, -(10**30)])
def test_what_names_no_process_is_not_known(pid: int) -> None:
    assert exists(pid) is None


def test_another_process_under_the_same_number_is_gone() -> None:
    with alive() as process:
        me = identify(process.pid)
        assert me.start is not None
        assert exists(me.pid, me.start + 1) is False


def test_one_of_another_boot_or_namespace_is_not_own() -> None:
    me = identify(os.getpid())
    assert me.pidns is not None
    assert is_own(me)
    assert not is_own(me._replace(boot="another"))
    assert not is_own(me._replace(pidns=me.pidns + 1))


def test_a_zombie_is_gone() -> None:
    with zombie() as pid:
        assert exists(pid) is False


def test_a_process_lives_as_long_as_one_of_its_threads() -> None:
    with half_zombie() as pid:
        assert exists(pid)
        assert exists(pid, identify(pid).start)


def test_without_identity_the_host_name_decides() -> None:
    pid = os.getpid()
    assert is_own(ProcessIdentity(pid), own_host_name())
    assert not is_own(ProcessIdentity(pid), "another.host")
    assert not is_own(ProcessIdentity(pid))
    assert is_own(ProcessIdentity(pid, boot=own_boot()), own_host_name())
    assert not is_own(ProcessIdentity(pid, boot="another"), own_host_name())


def test_identity_goes_before_the_host_name() -> None:
    assert is_own(identify(os.getpid()), "another.host")


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_without_proc(monkeypatch: pytest.MonkeyPatch, has_pidfd: bool) -> None:
    monkeypatch.setattr(identity, "_proc_is_ours", lambda: False)
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    with alive() as process:
        assert own_pidns() is None
        assert identify(process.pid) == ProcessIdentity(process.pid)
        assert exists(process.pid)
        assert exists(process.pid, 5) is None
    assert exists(process.pid) is False
    assert exists(process.pid, 5) is False
    with zombie() as pid:
        assert exists(pid) is not has_pidfd


def test_somebody_elses_process_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert exists(1)
