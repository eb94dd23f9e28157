"""A child that becomes a command when it is told to: each in a Python of its own, since it forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest


def run(script: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a script that has Child and Order."""
    head = (
        "import os, signal, sys\n"
        "from ipclocker.process.spawn import CommandProcess, ExecSpec, caller_environment\n"
        "def end(child): return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])\n"
    )
    command = [sys.executable, "-c", head + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **more)  # type: ignore[call-overload,no-any-return]


def test_it_tells_and_becomes() -> None:
    done = run("""
        child = CommandProcess("tool", lambda: ({"key": [1, 2.5, None, "text"]},
                                                        ExecSpec(["sh", "-c", "echo $NEW; exit 5"])))
        print(child.options(), flush=True)
        child.start({"NEW": "value"})
        print(end(child))
    """)
    assert (done.stdout, done.stderr) == ("{'key': [1, 2.5, None, 'text']}\nvalue\n5\n", "")


def test_it_waits_for_the_word() -> None:
    done = run("""
        child = CommandProcess("tool", lambda: ({}, ExecSpec(["echo", "ran"])))
        child.options()
        child.dismiss()
        print(end(child))
    """)
    assert (done.stdout, done.stderr) == ("70\n", "")


@pytest.mark.parametrize(("end", "code"), [("64", 64), ("None", 0), ("'words'", 70)])
def test_it_may_end_instead(end: str, code: int) -> None:
    done = run(f"""
        def prepare():
            print("said")
            raise SystemExit({end})
        child = CommandProcess("tool", prepare)
        print(child.options(), child.exit_code())
    """)
    assert done.stdout == f"said\nNone {code}\n"


def test_killed_before_it_said_anything() -> None:
    done = run("""
        child = CommandProcess("tool", lambda: os.kill(os.getpid(), signal.SIGKILL))
        print(child.options(), child.exit_code())
    """)
    assert done.stdout == "None 137\n"


def test_nothing_to_become() -> None:
    done = run("""
        child = CommandProcess("tool", lambda: ({"a": 1}, None))
        print(child.options(), child.exit_code())
    """)
    assert done.stdout == "{'a': 1} 0\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["no-such-program"], 127, "tool: cannot execute 'no-such-program': No such file or directory\n"),
        (["/no/such/program"], 127, "tool: cannot execute '/no/such/program': No such file or directory\n"),
        (["/etc/passwd"], 126, "tool: cannot execute '/etc/passwd': Permission denied\n"),
        (["true", "x" * 200_000], 126, "tool: cannot execute 'true': Argument list too long\n"),
    ],
    ids=["unknown", "not there", "not executable", "too long"],
)
def test_what_can_not_be_executed(words: list[str], code: int, message: str) -> None:
    script = """
        import json
        child = CommandProcess("tool", lambda: ({}, ExecSpec(json.load(sys.stdin))))
        child.options()
        child.start({"A": "a"})
        print(end(child))
    """
    done = run(script, input=json.dumps(words))
    assert (done.stdout, done.stderr) == (f"{code}\n", message)


def test_in_a_folder() -> None:
    done = run("""
        child = CommandProcess("tool", lambda: ({}, ExecSpec(["pwd"], "/usr")))
        child.options(); child.start({"A": "a"}); end(child)
    """)
    assert done.stdout == "/usr\n"


def test_the_callers_environment_not_pythons() -> None:
    done = run(
        "os.environ['ADDED'] = 'x'; print(sorted(caller_environment()))",
        env={"LANG": "C", "PYTHONPATH": os.getcwd(), "LINES": "a=b\nc"},
    )
    assert done.stdout == "['LANG', 'LINES', 'PYTHONPATH']\n"


def test_no_process_to_be_had() -> None:
    done = run("""
        from ipclocker.errors import IpclockerError
        def fork(): raise BlockingIOError(11, "Resource temporarily unavailable")
        os.fork = fork
        try:
            CommandProcess("tool", lambda: ({}, None))
        except IpclockerError as error:
            print(error)
    """)
    assert done.stdout == "cannot make a process for the command: Resource temporarily unavailable\n"
