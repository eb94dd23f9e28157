"""Signals read from a descriptor, on Linux's way and on the way of other systems."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ipclocker.process.signal_reader import ends_by_default
from ipclocker.process.tree import descends_from

WAYS = {"signalfd": "", "handlers": "libc._libc = None\n"}


def run(way: str, script: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a script that has `signals` and `poll`, in a session of its own so that no terminal plays a part."""
    head = """
        import os, select, signal, subprocess, sys
        from ipclocker.process import libc
        from ipclocker.process.signal_reader import *
        {way}
        signals = SignalReader()
        def poll():
            poller = select.poll()
            poller.register(signals.descriptor, select.POLLIN)
            assert poller.poll(20_000)
            return signals.read()
    """
    text = textwrap.dedent(head).format(way=WAYS[way]) + textwrap.dedent(script)
    command = [sys.executable, "-c", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, start_new_session=True, **more)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("way", WAYS)
class TestBothWays:
    def test_each_is_read_once(self, way: str) -> None:
        done = run(
            way,
            """
            assert signals.read() == []
            for number in (1, 2, 3, 15, 10, 17, 18, 20, 28, 34):
                os.kill(os.getpid(), number)
                print(*[(s.number, s.to_group) for s in poll()])
            assert signals.read() == []
            """,
        )
        numbers = (1, 2, 3, 15, 10, 17, 18, 20, 28, 34)
        assert done.stdout.splitlines() == [str((number, False)) for number in numbers], done.stderr

    def test_many_at_once(self, way: str) -> None:
        done = run(
            way,
            """
            for _ in range(5000):
                os.kill(os.getpid(), signal.SIGWINCH)
                os.kill(os.getpid(), signal.SIGTERM)
            seen = set()
            while len(seen) < 2:
                seen |= {s.number for s in poll()}
            print(sorted(seen))
            """,
        )
        assert done.stdout == "[15, 28]\n", done.stderr

    def test_ignored_ones_are_known(self, way: str) -> None:
        done = run(
            way,
            "print(signals.ignored, signals.is_deadly(1), signals.is_deadly(2), signals.is_deadly(18))",
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        )
        assert done.stdout == "{<Signals.SIGHUP: 1>} False True False\n", done.stderr

    def test_by_default(self, way: str) -> None:
        """Meanwhile a deadly signal is deadly, one that came just before included; then no more."""
        done = run(way, "with signals.by_default(): os.kill(os.getpid(), 15); print('lives on')")
        assert (done.returncode, done.stdout) == (-15, "")
        done = run(
            way, "with signals.by_default(): os.kill(os.getpid(), 28)\nos.kill(os.getpid(), 15); print({*poll()} and 1)"
        )
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr

    def test_an_ignored_one_is_not_deadly_by_default(self, way: str) -> None:
        done = run(
            way,
            "with signals.by_default(): os.kill(os.getpid(), 15); print('lives on')",
            preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        )
        assert done.stdout == "lives on\n"


def test_who_sent_it() -> None:
    done = run("signalfd", "os.kill(os.getpid(), 15); print([s.sender == os.getpid() for s in poll()])")
    assert done.stdout == "[True]\n", done.stderr


def test_descends_from() -> None:
    assert descends_from(os.getpid(), os.getpid())
    assert descends_from(os.getpid(), os.getppid())
    assert not descends_from(os.getppid(), os.getpid())
    assert not descends_from(0, os.getpid())
    assert not descends_from(1, os.getpid())
    with subprocess.Popen(["true"]) as process:
        assert descends_from(process.pid, os.getpid()), "a zombie, too"
        process.wait()
    assert not descends_from(process.pid, os.getpid())


def test_ends_by_default() -> None:
    harmless = {signal.Signals(n).name for n in range(1, 32) if not ends_by_default(n)}
    assert harmless == {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
