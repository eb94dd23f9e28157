"""Supervisor as a Python program uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipclocker import Supervisor, UsageError

from ..support import PROJECT
from ..support.processes import all_gone, command_line, is_alive, processes_with
from ..support.waiting import in_thread, wait_for

SCRIPT = """
from ipclocker import ProgramFailed, Supervisor

server = Supervisor({parameters})
{register}
try:
    server.run(lambda: print("Quitting via SIGTERM or SIGINT", flush=True))
except ProgramFailed as failure:
    print(failure, flush=True)
print("after it", flush=True)
"""


class Script:
    """A Python program with a Supervisor in it."""

    def __init__(self, folder: Path, *commands: str, parameters: str = "") -> None:
        self.notes = folder
        register = "\n".join(f"server.register({command!r})" for command in commands)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(parameters=parameters, register=register)],
            cwd=PROJECT,
            env={**os.environ, "NOTES": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def latest(self, name: str, count: int = 1) -> int:
        """Wait until a program has noted so many processes; the last."""
        path = self.notes / name
        wait_for(lambda: path.exists() and len(path.read_text().split()) >= count, f"{name}, {count} times")
        return int(path.read_text().split()[-1])

    def end(self) -> str:
        """Wait for its end; what it has printed."""
        out, _ = self.process.communicate(timeout=30)
        return out


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[list[Script]]:
    started: list[Script] = []
    yield started
    for script in started:
        script.process.kill()
        script.process.communicate()


def noting(name: str) -> str:
    return f'{name}: echo $$ >> "$NOTES/{name}"; exec sleep 1000'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_document_of_the_hydra_server(scripts: list[Script], tmp_path: Path, number: signal.Signals) -> None:
    script = Script(tmp_path, noting("one"), noting("two"))
    scripts.append(script)
    one, two = script.latest("one"), script.latest("two")
    os.kill(one, signal.SIGKILL)  # a dead child is identified and started again
    one = script.latest("one", 2)
    assert is_alive(two)
    script.process.send_signal(signal.SIGHUP)  # kills and restarts them
    after = script.latest("one", 3), script.latest("two", 2)
    assert not is_alive(one) and not is_alive(two)
    script.process.send_signal(number)  # kills its children
    assert script.end().splitlines()[-2:] == ["Quitting via SIGTERM or SIGINT", "after it"]
    assert script.process.returncode == 0
    assert not any(map(is_alive, after))


def test_if_it_is_killed_so_are_the_programs(scripts: list[Script], tmp_path: Path) -> None:
    script = Script(tmp_path, "one: setsid sh -c 'echo $$ >> \"$NOTES/below\"; exec sleep 1000' & " + noting("one")[5:])
    scripts.append(script)
    pids = [script.latest("one"), script.latest("below")]
    script.process.kill()
    script.process.wait()
    wait_for(lambda: not any(map(is_alive, pids)), "their end")


def test_the_watchdog_that_sees_to_that_is_replaced_if_it_was_killed(scripts: list[Script], tmp_path: Path) -> None:
    script = Script(tmp_path, noting("one"))
    scripts.append(script)
    one = script.latest("one")
    line = " ".join(command_line(script.process.pid))

    def watchdogs() -> list[int]:
        return [pid for pid in processes_with(line) if pid != script.process.pid]

    (first,) = watchdogs()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: watchdogs() not in ([], [first]), "another one")
    script.process.kill()
    script.process.wait()
    all_gone([one])


def test_a_program_that_is_given_up(scripts: list[Script], tmp_path: Path) -> None:
    script = Script(tmp_path, noting("one"), "bad: exit 1", parameters='give_up="2/20", fatal_exit=True')
    scripts.append(script)
    assert script.end().splitlines()[-3:] == [
        "Quitting via SIGTERM or SIGINT",
        "the program 'bad' died too often (2/20)",
        "after it",
    ]


def test_output(scripts: list[Script], tmp_path: Path) -> None:
    script = Script(tmp_path, "loud: echo hello; sleep 1000")
    scripts.append(script)
    assert script.process.stdout is not None
    assert script.process.stdout.readline().endswith(" loud: hello\n")
    script.process.terminate()
    script.end()


def test_names() -> None:
    supervisor = Supervisor()
    supervisor.register("/usr/bin/program.1")
    supervisor.register("/usr/bin/program.2 --x")
    supervisor.register("sleep 1", name="third")
    with pytest.raises(UsageError, match=r"there is a program called 'program.1' already"):
        supervisor.register("/opt/program.1")
    with pytest.raises(UsageError, match="the command is missing"):
        supervisor.register("x:")
    with pytest.raises(UsageError, match="cmd is 5: it takes a command line"):
        supervisor.register(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="name is 5: it takes a name"):
        supervisor.register("sleep 1", 5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="exit_func is 5: it takes a function"):
        supervisor.run(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"stop_signal": "NOSUCH"}, "the signal 'NOSUCH' is not known"),
        ({"stop_timeout": -1}, "stop_timeout is '-1': it takes a number of seconds"),
        ({"first_pause": 0}, "first_pause is '0': it takes a number of seconds, more than 0"),
        ({"give_up": "x"}, "'x' does not say when to give up"),
        ({"give_up": "10/10"}, "'10/10' never happens: the pauses between 10 deaths alone take 40.9 s"),
        ({"fatal_exit": True}, "nothing is ever fatal"),
        ({"output": "/x", "output_dir": "/y"}, "output goes to one file, or to one for each program"),
        ({"lock": "a b"}, "the lock name 'a b'"),
        ({"lock": "a", "port": "nosuch"}, "the port 'nosuch'"),
        ({"lock": "a", "lease": 0}, "lease is '0'"),
        ({"stop_signal": [15]}, r"stop_signal is \[15\]: it takes the name of a signal or its number"),
        ({"stop_timeout": "5"}, "stop_timeout is '5': it takes a number of seconds"),
        ({"good_run": float("nan")}, "good_run is 'nan': it takes a number of seconds"),
        ({"longest_pause": None}, "longest_pause is 'None': it takes a number of seconds"),
        ({"give_up": 5}, "give_up is 5: it takes deaths and seconds, as 5/10"),
        ({"fatal_exit": "yes"}, "fatal_exit is 'yes': it takes True or False"),
        ({"output": 5}, "output is 5: it takes the name of a file"),
        ({"output_dir": b"x"}, "output_dir is b'x': it takes the name of a folder"),
        ({"lock": 5}, "lock is 5: it takes the name of a lock, or several"),
        ({"lock": ["a", None]}, r"lock is \['a', None\]: it takes the name of a lock, or several"),
        ({"lock": "a", "host": 5}, "host is 5: it takes the name or address of a host"),
        ({"lock": "a", "lease": None}, "lease is 'None': it takes a number of seconds"),
        ({"lock": "a", "path": 5}, "path is 5: it takes the name of a file"),
    ],
)
def test_parameters_that_mean_nothing(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Supervisor(**parameters)


def test_a_parameter_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="'nosuch'"):
        Supervisor(nosuch=1)  # type: ignore[call-arg]


STOPPED = """
import signal, sys, threading
from ipclocker import Supervisor

supervisor = Supervisor(stop_timeout=20)
note = "$NOTES/one"
supervisor.register(f"one: trap 'echo ended >> {note}; exit' TERM; echo $$ >> {note}; while :; do sleep 0.1; done")

def stop():
    sys.stdin.readline()
    supervisor.stop()
    supervisor.stop()  # does no harm

if sys.argv[1] == "thread":
    threading.Thread(target=stop).start()
elif sys.argv[1] == "handler":
    signal.signal(signal.SIGUSR2, lambda *_: supervisor.stop())
    threading.Thread(target=lambda: (sys.stdin.readline(), signal.raise_signal(signal.SIGUSR2))).start()
else:
    supervisor.stop()
supervisor.run(lambda: print("exit_func", flush=True))
print("after it", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
"""


@pytest.mark.parametrize("way", ["thread", "handler", "before"])
def test_stop(tmp_path: Path, way: str) -> None:
    note = tmp_path / "one"
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, way],
        cwd=PROJECT,
        env={**os.environ, "NOTES": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if way != "before":
            wait_for(lambda: note.exists() and note.read_text())
        out, _ = process.communicate("now\n", timeout=60)
    assert out.endswith("exit_func\nafter it True\n")
    assert process.returncode == 0
    assert note.read_text().endswith("ended\n") if way != "before" else not note.exists()


def test_run_in_a_thread_is_refused_at_once() -> None:
    supervisor = Supervisor()
    supervisor.register("sleep 1000")
    refused = pytest.raises(UsageError, match=r"Supervisor.run was called in a thread: call it in the main thread")
    with refused, in_thread(lambda: supervisor.run(lambda: pytest.fail("it was never run"))):
        pass
    supervisor.stop()  # nothing is there to be stopped
