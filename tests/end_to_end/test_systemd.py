"""The units under a real systemd: what they confine the daemons to must not be what those need."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipclocker.service_files.quoting import command_line

from ..support.waiting import wait_for
from .systemd import Systemd, booted

DAEMONS = ("lockerd", "pidstatd")
CHECKS = {"lockerd": "LOCKERD OK", "pidstatd": "PIDSTATD OK"}


@pytest.fixture(scope="module")
def systemd(built_file: Path) -> Iterator[Systemd]:
    with booted(built_file) as running:
        for tool in DAEMONS:
            running.install(f"{tool}.service", running("ipclocker", "units", tool))
            running.install(f"{tool}.socket", running("ipclocker", "units", tool, "--socket"))
        running("systemctl", "daemon-reload")
        yield running


@pytest.fixture
def started(systemd: Systemd) -> Iterator[Systemd]:
    """With both services running; they own their sockets."""
    systemd("systemctl", "start", *DAEMONS)
    yield systemd
    systemd("systemctl", "stop", *DAEMONS)


@contextmanager
def changed(systemd: Systemd, settings: str) -> Iterator[None]:
    """lockerd's service, which does not run, with other settings as long as the block runs."""
    systemd.install("lockerd.service.d/other.conf", f"[Service]\n{settings}\n")
    systemd("systemctl", "daemon-reload")
    try:
        yield
    finally:
        systemd("systemctl", "stop", "lockerd")
        systemd("systemctl", "reset-failed", "lockerd", check=False)
        systemd.remove("lockerd.service.d/other.conf")
        systemd("systemctl", "daemon-reload")


def answers(systemd: Systemd, tool: str) -> bool:
    return CHECKS[tool] in systemd("ipclocker", f"check-{tool}", check=False)


@pytest.mark.parametrize("tool", DAEMONS)
def test_a_service_is_started_when_it_answers(started: Systemd, tool: str) -> None:
    assert answers(started, tool)
    assert started.show(tool, "ActiveState") == "active"
    assert started.show(tool, "StatusText").startswith("listening on ")
    status = Path(f"/proc/{started.process(tool)}/status").read_text()
    assert re.search(r"^Seccomp:\s*2$", status, re.MULTILINE), "it is confined"
    assert not re.search(r"^Uid:\s*0\b", status, re.MULTILINE)


def test_the_journal_knows_the_time_by_itself(started: Systemd) -> None:
    def begins() -> bool:  # what a service has said may reach the journal a moment later
        line = started.journal("-t", "lockerd", "-o", "cat").splitlines()[-1]
        return re.match(r"lockerd \d+\.\d+\.\d+, listening on ", line) is not None

    wait_for(begins, "the line of the start to be the last one")
    assert started.journal("-t", "lockerd", "-p", "err", "-o", "cat") in ("", "-- No entries --\n")
    assert re.search(r" lockerd\[\d+\]: ", started.journal("-u", "lockerd"))


def test_locks_outlive_the_service_and_a_start_anew(started: Systemd) -> None:
    holder = started("sh", "-c", "ipclocker lockersh --lock kept sleep 300 >/dev/null 2>&1 & echo $!").strip()
    wait_for(lambda: "kept" in locks(started), "the lock to be held")
    for action in ("reload", "restart"):
        before = started.process("lockerd")
        started("systemctl", action, "lockerd")
        wait_for(lambda: answers(started, "lockerd"), "an answer")
        assert (started.process("lockerd") == before) == (action == "reload")
        assert "kept" in locks(started)
    started("kill", "-9", holder)
    wait_for(lambda: "kept" not in locks(started), "the lock of a killed holder to be free")


def locks(systemd: Systemd) -> str:
    return systemd("ipclocker", "lockersh", "--locklist")


def test_processes_of_other_users_are_seen(started: Systemd) -> None:
    asked = "import socket; s = socket.socket(type=2); s.settimeout(30); s.connect(('127.0.0.1', 1752)); "
    asked += "s.send(b'PIDR 1 h 7\\n'); print(s.recv(99)); s.send(b'PIDR 999999 h 7\\n'); print(s.recv(99))"
    assert started("/usr/bin/python3", "-c", asked).split("\n") == ["b'EXIS 1 1 h'", "b'EXIS 999999 0 h'", ""]
    assert "proc hides nothing" in started.show("pidstatd", "StatusText")


def test_a_server_that_hangs_is_ended_and_another_started(systemd: Systemd) -> None:
    with changed(systemd, "WatchdogSec=1"):
        systemd("systemctl", "start", "lockerd")
        hung = systemd.process("lockerd")
        time.sleep(2.5)  # longer than it may be silent
        assert systemd.process("lockerd") == hung, "one that is well is left alone"
        os.kill(hung, signal.SIGSTOP)
        wait_for(lambda: systemd.show("lockerd", "NRestarts") == "1", "the next one")
        wait_for(lambda: systemd.show("lockerd", "ActiveState") == "active", "that to be ready")
        assert answers(systemd, "lockerd")
        assert "Watchdog timeout" in systemd.journal("-u", "lockerd")


@pytest.mark.parametrize("tool", DAEMONS)
def test_started_by_its_first_client(systemd: Systemd, tool: str) -> None:
    systemd("systemctl", "start", f"{tool}.socket")
    try:
        for action in (None, "reload", "restart"):
            if action is None:
                assert systemd.show(tool, "ActiveState") == "inactive"
            else:
                systemd("systemctl", action, tool)
            assert answers(systemd, tool)
            wait_for(lambda: systemd.show(tool, "ActiveState") == "active", "that to be ready")
        os.kill(systemd.process(tool), signal.SIGKILL)
        assert answers(systemd, tool), "after a moment without a server"
    finally:
        systemd("systemctl", "stop", f"{tool}.socket", tool)


def test_a_start_that_fails_says_why(systemd: Systemd) -> None:
    with changed(systemd, "Restart=no\nEnvironment=IPCLOCKER_PORT=/nowhere/at/all"):
        systemd("systemctl", "start", "lockerd", check=False)
        assert systemd.show("lockerd", "ExecMainStatus") == "64"
        assert "cannot listen" in systemd.show("lockerd", "StatusText")
        assert "cannot listen" in systemd.journal("-u", "lockerd", "-p", "err", "-o", "cat")


WORDS = [
    *("", " ", "a b", '"', "'", "\\", "$HOME", "${HOME}", "$$", "%h", "%%", "100%", ";", "; x", "a;b", "#x", "\t"),
    *("a\nb", "ü€😀", "\udcff\udcfe", "-", "--x=y z", "\\n", "\\x41", "\\$", "@", "*", "~", "`id`", "|", "\x01\x7f"),
    *("\u202e", "line end\\", "!", "+x", "\xa0"),
]


def test_words_reach_a_program_as_they_are(systemd: Systemd) -> None:
    show = "/run/a $HOME %h\xfc;/show"
    path = Path(f"/proc/{systemd.pid}/root{show}")
    path.parent.mkdir()
    path.write_text("#!/usr/bin/python3\nimport sys\nprint(ascii(sys.argv))\n")
    path.chmod(0o755)
    systemd.install(
        "words.service",
        f"[Service]\nType=oneshot\nEnvironment=HOME=/x\nExecStart={command_line([show], WORDS)}\n"
        "StandardOutput=file:/run/words\n",
    )
    systemd("systemctl", "daemon-reload")
    systemd("systemctl", "start", "words")
    assert Path(f"/proc/{systemd.pid}/root/run/words").read_text() == ascii([show, *WORDS]) + "\n"
