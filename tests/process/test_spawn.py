"""A child that becomes a command when it is told to: each in a Python of its own, since it forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest


def run(script: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a script that has CommandProcess and ExecSpec."""
    head = (
        "import os, signal, sys\n"
        "from ipclocker.process.spawn import CommandProcess, ExecSpec, call_in_child, caller_environment\n"
        "def end(child): return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])\n"
    )
    command = [sys.executable, "-c", head + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **more)  # type: ignore[call-overload,no-any-return]


def test_it_becomes_the_command() -> None:
    done = run("""
        child = CommandProcess("tool", ExecSpec(["echo $NEW; exit 5"]))
        child.start({"NEW": "value"})
        print(end(child))
    """)
    assert (done.stdout, done.stderr) == ("value\n5\n", "")


def test_without_a_shell() -> None:
    done = run("""
        child = CommandProcess("tool", ExecSpec(["echo", "$NEW", ";"], exact=True))
        child.start({"NEW": "value"})
        end(child)
    """)
    assert done.stdout == "$NEW ;\n"


def test_it_waits_for_the_word() -> None:
    done = run("""
        child = CommandProcess("tool", ExecSpec(["echo", "ran"]))
        child.dismiss()
        print(end(child))
    """)
    assert (done.stdout, done.stderr) == ("70\n", "")


def test_a_call_in_another_process() -> None:
    done = run("""
        def call(text):
            return {"process": os.getpid(), "key": [1, 2.5, None, text]}
        result = call_in_child(call, "text")
        print(result["key"], result["process"] != os.getpid())
    """)
    assert done.stdout == "[1, 2.5, None, 'text'] True\n"


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("raise SystemExit(64)", 64),
        ("raise SystemExit", 0),
        ("raise KeyError", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
@pytest.mark.parametrize("children", ["SIG_DFL", "SIG_IGN"])
def test_a_call_may_end_its_process(end: str, code: int, children: str) -> None:
    done = run(f"""
        signal.signal(signal.SIGCHLD, signal.{children})
        first = os.getpid()
        def call():
            print("said", flush=True)
            {end}
        try:
            call_in_child(call)
        except SystemExit as end:
            if os.getpid() != first: raise
            print(end.code, signal.getsignal(signal.SIGCHLD).name)
    """)
    assert done.stdout == f"said\n{code} {children}\n"


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
        child = CommandProcess("tool", ExecSpec(json.load(sys.stdin), exact=True))
        child.start({"A": "a"})
        print(end(child))
    """
    done = run(script, input=json.dumps(words))
    assert (done.stdout, done.stderr) == (f"{code}\n", message)


def test_in_a_folder() -> None:
    done = run("""
        child = CommandProcess("tool", ExecSpec(["pwd -P; echo $PWD"], folder="/proc/self/../../usr"))
        child.start({"A": "a"}); end(child)
    """)
    assert done.stdout == "/usr\n/proc/self/../../usr\n"


def test_in_no_folder() -> None:
    done = run("""
        child = CommandProcess("tool", ExecSpec(["pwd"], folder="/nonexistent"))
        child.start({"A": "a"}); end(child)
    """)
    assert done.stdout == f"{os.getcwd()}\n"
    reason = "No such file or directory; the command runs where it is"
    assert done.stderr == f"tool: cannot go to the folder '/nonexistent': {reason}\n"


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
            CommandProcess("tool", ExecSpec(["true"]))
        except IpclockerError as error:
            print(error)
    """)
    assert done.stdout == "cannot make a process for the command: Resource temporarily unavailable\n"
