"""Whose word about a process counts: every case of kernel, namespaces, machine and host name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipclocker.process import relation as relation_module
from ipclocker.process import viewpoint
from ipclocker.process.identity import ProcessIdentity, identify
from ipclocker.process.relation import GONE, HERE, ON_THIS_KERNEL, UNSEEN, comparable_start, relation
from ipclocker.process.viewpoint import HOST_PIDNS, HOST_TIMENS, View, own_view

UPTIME = 100.0
VIEW = View("boot-2", HOST_PIDNS, HOST_TIMENS, "machine", "node7")
SEEN = ProcessIdentity(5, 50, *VIEW)
REBOOTED = SEEN._replace(boot="boot-1")  # and silent for longer than this kernel is up


@pytest.fixture(autouse=True)
def up_for_100_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relation_module, "_uptime", lambda: UPTIME)


def test_a_process_of_this_kernel_and_namespace_is_here() -> None:
    assert relation(identify(os.getpid()), own_view()) == HERE
    assert relation(SEEN, VIEW) == HERE


def test_the_host_name_and_the_machine_do_not_matter_then() -> None:
    assert relation(SEEN._replace(host="other", machine=""), VIEW) == HERE


def test_one_of_another_namespace_is_elsewhere_on_this_kernel() -> None:
    assert relation(SEEN._replace(pidns=7), VIEW, UPTIME * 2) == ON_THIS_KERNEL


def test_a_machine_that_was_booted_since_has_not_kept_the_process() -> None:
    assert relation(REBOOTED, VIEW, UPTIME + 1) == GONE


@pytest.mark.parametrize("silent", [None, 0.0, UPTIME - 1, UPTIME])
def test_a_kernel_that_was_up_beside_the_other_is_of_another_machine(silent: float | None) -> None:
    assert relation(REBOOTED, VIEW, silent) == UNSEEN


@pytest.mark.parametrize(
    ("process", "view"),
    [
        (REBOOTED._replace(machine="another"), VIEW),
        (REBOOTED._replace(machine=""), VIEW._replace(machine="")),
        (REBOOTED._replace(host="node8"), VIEW),
        (REBOOTED._replace(host="localhost"), VIEW._replace(host="localhost")),
        (REBOOTED._replace(host="localhost.localdomain"), VIEW._replace(host="localhost.localdomain")),
        (REBOOTED._replace(host=""), VIEW._replace(host="")),
        (REBOOTED._replace(pidns=7), VIEW),
        (REBOOTED, VIEW._replace(pidns=7)),
        (REBOOTED._replace(pidns=7), VIEW._replace(pidns=7)),
        (REBOOTED._replace(timens=7), VIEW),
        (REBOOTED, VIEW._replace(timens=7)),
    ],
)
def test_one_missing_proof_of_the_same_machine_and_nobody_can_tell(process: ProcessIdentity, view: View) -> None:
    assert relation(process, view, UPTIME * 10) == UNSEEN


def test_a_kernel_without_time_namespaces_is_proof_enough() -> None:
    assert relation(REBOOTED._replace(timens=None), VIEW._replace(timens=None), UPTIME + 1) == GONE


@pytest.mark.parametrize("view", [VIEW._replace(boot=""), VIEW._replace(pidns=None), View()])
def test_who_does_not_know_its_own_place_can_not_tell(view: View) -> None:
    assert relation(SEEN, view, UPTIME * 10) == UNSEEN


def test_one_that_told_nothing_is_not_known() -> None:
    assert relation(ProcessIdentity(5), VIEW, UPTIME * 10) == UNSEEN
    assert relation(SEEN._replace(pidns=None), VIEW, UPTIME * 10) == UNSEEN


def test_start_times_of_two_time_namespaces_are_not_compared() -> None:
    assert comparable_start(SEEN, VIEW) == 50
    assert comparable_start(SEEN._replace(timens=7), VIEW) is None
    assert comparable_start(SEEN._replace(timens=None), VIEW) == 50  # of a version that did not tell


def test_the_machine_is_told_by_a_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/etc/machine-id": "0123456789abcdef0123456789abcdef"}
    monkeypatch.setattr(viewpoint, "_first_line", texts.__getitem__)
    shown = viewpoint.own_machine()
    assert len(shown) == 32 and shown != texts["/etc/machine-id"] and viewpoint.own_machine() == shown
    for nothing in ("", "uninitialized"):
        texts["/etc/machine-id"] = nothing
        assert viewpoint.own_machine() == ""


SHOW = "from ipclocker.process.viewpoint import own_view; v = own_view(); print(v.pidns, v.can_name_processes)"


def shown_below(*unshare: str) -> list[str]:
    command = ["unshare", *unshare, sys.executable, "-c", SHOW]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces take root")
def test_a_proc_of_another_namespace_is_noticed() -> None:
    assert shown_below("--pid", "--fork") == ["None", "False"]
    pidns, can_name = shown_below("--pid", "--fork", "--mount-proc")
    assert int(pidns) != own_view().pidns and can_name == "True"


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces take root")
def test_a_hidden_proc_sys_is_noticed(tmp_path: Path) -> None:
    hide = f"mount --bind {tmp_path} /proc/sys && exec {sys.executable} -c '{SHOW}'"
    command = ["unshare", "--mount", "sh", "-c", hide]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split()[1] == "False"


def test_uptime_is_that_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with open("/proc/uptime") as file:
        assert abs(relation_module._uptime() - float(file.read().split()[0])) < 60
    assert relation_module._uptime() <= time.clock_gettime(time.CLOCK_BOOTTIME)
