"""Whether a process is still there, in three values, on real processes."""

from __future__ import annotations

import os

import pytest

from ipclocker.process import identity, viewpoint
from ipclocker.process.identity import ProcessIdentity, exists, identify

from ..support.processes import NO_PID, alive, gone, half_zombie, zombie


def test_a_process_that_lives() -> None:
    with alive() as process:
        assert exists(process.pid)
        me = identify(process.pid)
        assert exists(me.pid, me.start)
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


def test_a_zombie_is_gone() -> None:
    with zombie() as pid:
        assert exists(pid) is False


def test_a_process_lives_as_long_as_one_of_its_threads() -> None:
    with half_zombie() as pid:
        assert exists(pid)
        assert exists(pid, identify(pid).start)


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_without_proc(monkeypatch: pytest.MonkeyPatch, has_pidfd: bool) -> None:
    for module in (identity, viewpoint):
        monkeypatch.setattr(module, "proc_is_ours", lambda: False)
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    with alive() as process:
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
