"""What the monitoring plugins have in common: one line for people and one for graphs, and four exit codes.

The conventions are those of the Monitoring Plugins project (Development Guidelines): OK 0, WARNING 1, CRITICAL 2,
UNKNOWN 3, which is also for a wrong command line; a threshold is passed by what is greater.
"""

from __future__ import annotations

from typing import Any, Callable

import typer

from ..errors import USAGE, IpclockerError
from .typer_support import parse, seconds

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
PATIENCE = 10.0  # seconds after which a server that has not answered is taken for none, as those who call plugins do


def warning() -> Any:
    """The option for the seconds from which a response is slow."""
    return typer.Option(
        "-w", "--warning", parser=seconds, metavar="SECONDS", show_default=False, help="WARNING if it takes longer."
    )


def critical() -> Any:
    """The option for the seconds from which a response is as bad as none."""
    return typer.Option(
        "-c", "--critical", parser=seconds, metavar="SECONDS", show_default=False, help="CRITICAL if it takes longer."
    )


def run(function: Callable[..., dict[str, int]], tool: str, words: list[str], example: str) -> int:
    """Run a plugin's typer function; whatever is wrong comes out as one line on stdout, and 3."""
    name = tool.partition("-")[2].upper()
    try:
        return int(parse(function, tool, words, example)["code"])
    except SystemExit as end:
        if end.code != USAGE:
            raise
        print(f"{name} UNKNOWN - the command line is wrong; see {tool} --help")
    except IpclockerError as error:
        print(f"{name} UNKNOWN - {error}")
    return UNKNOWN


def report(name: str, ok: bool, status: str, warn: float | None, limit: float | None) -> dict[str, int]:
    """Print the line of a check whose `status` begins with the seconds that it took, if `ok`; the exit code."""
    if not ok:
        print(f"{name} {_WORDS[CRITICAL]} - {status}")
        return {"code": CRITICAL}
    taken = float(status.split()[0])
    code = CRITICAL if _passed(taken, limit) else WARNING if _passed(taken, warn) else OK
    print(f"{name} {_WORDS[code]} - {status} | time={taken:.3f}s;{_written(warn)};{_written(limit)}")
    return {"code": code}


def _passed(taken: float, threshold: float | None) -> bool:
    return threshold is not None and taken > threshold


def _written(threshold: float | None) -> str:
    return "" if threshold is None else f"{threshold:g}"
