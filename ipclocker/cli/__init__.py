"""The command line: which tool was asked for, and how each one may end. Nothing here imports typer.

A tool is a module beside this one. Its COMMAND_LINES are the tool's own command line and those of its sub-commands
(command_line.py), which know what to do.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Callable

from ..errors import INTERNAL, OK, OUTPUT, USAGE, IpclockerError
from ..process.stderr import print_stderr
from ..version import VERSION

if TYPE_CHECKING:
    from .command_line import CommandLine

# Each tool with what it does in a line; the module is named after it.
TOOLS = {
    "lockerd": "serve locks to the hosts of a cluster",
    "lockersh": "run a command under a lock",
    "lockstat": "show who holds which lock and who waits for it, and break locks",
    "pidwatch": "run a command for as long as a process elsewhere lives",
    "pidstatd": "say which processes of this host exist",
    "pidstat": "ask whether processes of other hosts exist",
    "supervise": "keep programs running",
    "uriexec": "run a command that was encoded to pass through shells",
    "units": "print systemd units and init scripts for the daemons",
    "prefork": "keep copies of a FastCGI program running that share a socket",
    "check-lockerd": "check a lock server, as a monitoring plugin",
    "check-pidstatd": "check a pid server, as a monitoring plugin",
    "doctor": "check a host, and say what to do",
    "man": "show the manual page of a tool",
}
SUMMARY = "locks that hold across hosts, and what goes with them, in one file"
# What the file understands in a tool's place.
OPTIONS = {
    "--help": "Show this message and exit.",
    "--version": "Show the version and exit.",
    "--install-completion [SHELL]": "Let bash, zsh or fish complete the tools' command lines.",
    "--show-completion [SHELL]": "Print the script for that, to be put elsewhere.",
}


def run(argv: Sequence[str]) -> int:
    """Run the tool that the program's name or its first word names; the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ^C ends a tool; it prints no traceback
    _replace_closed_streams()
    _print_any_text()
    called_as = argv[0].rpartition("/")[2]
    if called_as in TOOLS:
        tool, words = called_as, list(argv[1:])
    elif len(argv) > 1 and argv[1] in TOOLS:
        tool, words = argv[1], list(argv[2:])
    else:
        tool, words = "ipclocker", list(argv[1:])
    if words and words[0].startswith(("--install-completion", "--show-completion")):
        return _guarded(tool, lambda: _complete(words))
    if tool == "ipclocker":
        return _guarded(tool, lambda: _no_tool(words))
    return _guarded(tool, lambda: _run_tool(tool, words))


def module_of(tool: str) -> ModuleType:
    """The module in which a tool is declared."""
    return import_module(f"{__name__}.{tool.replace('-', '_')}")


def command_lines(tool: str) -> tuple[type[CommandLine], ...]:
    """The command lines of a tool: its own, and those of its sub-commands, which begin with two words."""
    lines: tuple[type[CommandLine], ...] = module_of(tool).COMMAND_LINES
    return lines


def _complete(words: list[str]) -> int:
    return int(import_module(f"{__name__}.completion").main(words))


def _run_tool(tool: str, words: list[str]) -> int:
    whole, *subcommands = command_lines(tool)
    for line in subcommands:
        if line.SPEC.name.split()[-1:] == words[:1]:
            return line.main(words[1:])
    return whole.main(words)


def _no_tool(words: list[str]) -> int:
    if words in (["-V"], ["--version"], ["version"]):
        print(f"Version: {VERSION}")
    elif words in (["-h"], ["--help"], ["help"]):
        print(_overview())
    else:
        problem = f"there is no tool '{words[0]}'" if words else "say which tool"
        return _complain("ipclocker", f"{problem}: one of {', '.join(TOOLS)}; see ipclocker --help", USAGE)
    return OK


def _overview() -> str:
    tools = "\n".join(f"  {name:<16} {what}" for name, what in TOOLS.items())
    options = "\n".join(f"  {option:<30} {what}" for option, what in OPTIONS.items())
    return f"""Usage: ipclocker TOOL [OPTIONS] [ARGUMENTS]

{SUMMARY.capitalize()}.

{tools}

{options}

Each has --help. A link to this file that is named after a tool is that tool.

Version: {VERSION}"""


def _guarded(name: str, call: Callable[[], int]) -> int:
    """Run a tool so that whatever it raises comes out as one line on stderr and an exit code."""
    try:
        code = call()
        sys.stdout.flush()
        return code
    except IpclockerError as error:
        return _complain(name, str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has seen enough. What is still buffered must not fail again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is None and sys.stdout is not None:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _complain(name, f"{error.strerror or error}", OUTPUT)
    except Exception as error:
        if os.environ.get("IPCLOCKER_DEBUG"):
            raise
        kind = type(error).__name__
        return _complain(name, f"a fault of ours, {kind}: {error} (IPCLOCKER_DEBUG=1 shows where)", INTERNAL)


def _complain(name: str, text: str, code: int) -> int:
    print_stderr(f"{name}: {' '.join(text.split())}")
    return code


def _print_any_text() -> None:
    """Let `print` write names as they are, in UTF-8; bytes that are not UTF-8 come out as they came in."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def _replace_closed_streams() -> None:
    """Open something as 0, 1 and 2 where the caller has closed them: a socket of ours must not get that number.

    A command finds it closed again, since what Python opens is not inherited.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open as long as the process
