"""The command line's own parts: what is understood, and what an error looks like."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipclocker.cli import TOOLS, run
from ipclocker.cli.command_line import to_seconds
from ipclocker.cli.lockersh import Lockersh
from ipclocker.cli.typer_support import read_by_typer
from ipclocker.errors import USAGE, UsageError

from ..support import PROJECT
from ..support.processes import run_ipclocker
from ..support.servers import ThreadServer
from ..support.waiting import DEADLINE
from .test_readers import TEXT

OPTIONS = ["--lock", "--dhost", "--port", "--path", "--timeout", "--hold-timeout", "--connect-tries", "--nonsense"]
WORDS = st.one_of(
    st.sampled_from([*OPTIONS, *(f"{option}=1" for option in OPTIONS), "--", "-", "true"]),
    TEXT,
)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=6))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    try:
        values = read_by_typer(Lockersh.SPEC, ["--lock", "x", *words])
    except UsageError as error:
        assert str(error).endswith("; see lockersh --help")
    else:
        assert values["lock"][0] == "x"


def test_defaults() -> None:
    line = Lockersh.read(["--lock", "x", "true"])
    assert line.command == ["true"]
    assert (line.timeout, line.hold_timeout, line.release_tries) == (None, 0, 5)
    assert (line.connect_tries, line.connect_delay, line.conflict_exit_code) == (3, 30, 75)
    assert line.lost_signal == 15


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1.5", 1.5), ("1e3", 1000), (" 5 ", 5)])
def test_seconds(text: str, number: float) -> None:
    assert to_seconds(text) == number


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "-inf", "1e12", "999999999999.5", "soon", "5s"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(ValueError, match="no number of seconds"):
        to_seconds(text)


def test_no_tool(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["ipclocker", "nonsense\nof two lines"]) == USAGE
    assert capfd.readouterr().err.count("\n") == 1
    assert run(["ipclocker", "help"]) == 0
    overview = capfd.readouterr().out
    assert all(tool in overview for tool in TOOLS)


@pytest.mark.parametrize("tool", ["lockersh", "pidwatch"])
def test_a_well_formed_line_brings_typer_into_no_process(tool: str) -> None:
    """Neither into the one that stays, whose memory is beside each command, nor into the one that becomes it."""
    with ThreadServer() as server:
        options = ["--lock", "x", "--port", str(server.port)] if tool == "lockersh" else ["--pid", str(os.getpid())]
        run = [sys.executable, "-X", "importtime", "-m", "ipclocker", tool, *options, "printf", "ran"]
        done = subprocess.run(run, cwd=PROJECT, capture_output=True, text=True, timeout=DEADLINE)
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert done.stdout == "ran"
    assert {"ipclocker.cli.quick_reader", "ipclocker.run.foreground", "ipclocker.process.libc"} <= imported
    assert not {"typer", "click", "asyncio", "logging", "subprocess"} & imported


@pytest.mark.parametrize("variable", ["_LOCKERSH_COMPLETE", "_LOCKERD_COMPLETE", "_TYPER_COMPLETE_ARGS"])
def test_variables_of_the_library_below_mean_nothing(variable: str) -> None:
    for tool in ("lockersh", "lockerd"):
        done = run_ipclocker(tool, "--version", env={**os.environ, variable: "complete_bash"})
        assert (done.returncode, done.stdout[:9]) == (0, "Version: ")
