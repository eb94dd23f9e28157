"""uriexec as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..support import PROJECT


def uriexec(*words: str | bytes, cwd: str = "/", **environment: str) -> subprocess.CompletedProcess[bytes]:
    program = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); sys.argv[0] = 'uriexec'; "
    start = [sys.executable, "-c", program + "from ipclocker.__main__ import main; main()"]
    return subprocess.run([*start, *words], capture_output=True, cwd=cwd, env={**os.environ, **environment}, timeout=60)


def test_a_command() -> None:
    assert uriexec("echo", "%24HOME+%27a%20%20b%27", HOME="/h").stdout == b"/h a  b\n"


def test_what_was_encoded() -> None:
    words = ["printf", "'%s|'", '"$HOME"', "'a;  b'", "\\\\", "100%", "-x", "é"]
    encoded = uriexec("--encode", *words).stdout.strip()
    assert uriexec(encoded, HOME="/h").stdout == "/h|a;  b|\\|100%|-x|é|".encode()


def test_through_shells() -> None:
    """Each shell on the way would change the command, if it saw it."""
    words = "echo '$HOME' \"  \" '\\\\' ; echo \\"
    encoded = words.encode()
    for _ in range(3):
        encoded = uriexec("--encode", encoded).stdout.strip()
    way = f"{sys.executable} -m ipclocker uriexec"
    done = subprocess.run(f"{way} {way} {way} {encoded.decode()}", shell=True, cwd=PROJECT, stdout=subprocess.PIPE)
    assert done.stdout == subprocess.run(words, shell=True, stdout=subprocess.PIPE).stdout


def test_bytes_that_are_no_utf_8() -> None:
    assert uriexec(b"printf", b"%25s", b"\xff%FE").stdout == b"\xff\xfe"
    assert uriexec(b"--encode", b"\xff").stdout == b"%FF\n"
    assert uriexec(b"--show", b"%FF\xfe").stdout == b"\xff\xfe\n"


def test_options() -> None:
    assert uriexec("--cd", "%2Ftmp", "pwd").stdout == b"/tmp\n"
    assert uriexec("--cd=/tmp", "--", "pwd").stdout == b"/tmp\n"
    assert uriexec("--shell", "/bin/echo+-n%20x", "a%20%20b").stdout == b"x a  b"
    assert uriexec("--shell=", "printf", "%25s.", "a%20b", "c").stdout == b"a b.c."
    assert uriexec("echo", "--cd").stdout == b"--cd\n"
    assert b"Version: " in uriexec("--version").stdout
    assert b"--shell" in uriexec("--help").stdout


def test_it_becomes_the_command() -> None:
    program = (
        "import os, sys; os.execv(sys.executable, [sys.executable, '-m', 'ipclocker', 'uriexec', 'echo', '%24%24'])"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


@pytest.mark.parametrize("command", ["exit+7", "kill+-TERM+%24%24"])
def test_it_ends_as_the_command(command: str) -> None:
    assert uriexec(command).returncode == (7 if command.startswith("exit") else -signal.SIGTERM)


def test_the_command_finds_signals_as_the_caller_left_them() -> None:
    assert uriexec("kill+-PIPE+%24%24").returncode == -signal.SIGPIPE
    assert uriexec("kill+-INT+%24%24").returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 64, "Missing argument 'COMMAND...'"),
        (["--nonsense", "x"], 64, "No such option: --nonsense"),
        (["--cd"], 64, "requires an argument"),
        (["--show=x", "y"], 64, "does not take a value"),
        (["a%00b"], 64, "null byte"),
        (["--cd", "/nonexistent", "x"], 126, "cannot change to the folder '/nonexistent': No such file"),
        (["--shell", "/nonexistent", "x"], 127, "cannot execute '/nonexistent': No such file"),
        (["--shell", "", "nonexistent-program"], 127, "cannot execute 'nonexistent-program'"),
        (["--shell", "", "two%0Alines"], 127, "cannot execute 'two lines'"),
        (["--shell", "/tmp", "x"], 126, "cannot execute '/tmp': Permission denied"),
    ],
)
def test_errors(words: list[str], code: int, text: str) -> None:
    done = uriexec(*words)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(b"uriexec: ") and done.stderr.count(b"\n") == 1
    assert text.encode() in done.stderr


def test_a_script_without_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $1\n")
    script.chmod(0o755)
    assert uriexec(str(script), "hello").stdout == b"hello\n"
    assert uriexec("--shell=", str(script), "hello").stdout == b"hello\n"  # also where there is no shell between
