"""supervise status, start, stop and restart: a running supervisor asked and told."""

import json as json_module
from typing import Annotated, Any, Callable, Optional

import typer

from ..errors import UsageError
from ..supervise.control_socket import COMMANDS, ask, control_path
from ..supervise.state_machine import STANDBY, STOPPED, UP
from .tool_specs import Declaration
from .typer_support import parse, version_option

NOT_DONE = 1  # exit code: it was asked for, and the program is not as it should be
_WANTED = {"start": UP | {STANDBY}, "stop": {STOPPED}, "restart": UP | {STANDBY}}
_HELP = {
    "start": "Start programs that were stopped, are FATAL, or wait for their next start. Waits until each has been up "
    "for a second; exits with 1 if one has not.",
    "stop": "End programs, with all that they have started, until they are told to start. Waits until they have ended.",
    "restart": "End programs and start them again. Waits as start does.",
}

Names = Annotated[
    Optional[list[str]], typer.Argument(metavar="NAME...", help="Programs. [default: all]", show_default=False)
]
PidFile = Annotated[
    Optional[str],
    typer.Option(
        help="The supervisor's pid file, beside which its socket is. "
        "[default: that of this user's supervisor that has none]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def command(word: str, words: list[str]) -> int:
    """Run `supervise WORD`; the exit code."""
    name, function, example, _ = _declaration(word)
    assert function is not None
    return int(parse(function, name, words, example, interspersed=True)["code"])


def declarations() -> list[Declaration]:
    """What the manual page and the completion are made of."""
    return [_declaration(word) for word in COMMANDS]


def _declaration(word: str) -> Declaration:
    function: Callable[..., dict[str, int]] = status if word == "status" else _teller(word)
    return Declaration(f"supervise {word}", function, f"supervise {word} --pid-file /run/programs.pid web")


def status(
    names: Names = None,
    pid_file: PidFile = None,
    json: Json = False,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Show programs: name, state, pid, uptime, restarts, last exit.

    States: RUNNING; STARTING, up for less than a second; BACKOFF, it died and waits for its next start; STOPPING;
    STOPPED; STANDBY, the cluster lock is somebody else's; FATAL, it died too often. Exits with 69 if no supervisor
    answers.
    """
    answer = ask(_socket(pid_file), "status", names or [])
    if json:
        print(json_module.dumps(answer, indent=2))
    else:
        _show(answer)
    return {"code": 0}


def _teller(word: str) -> Callable[..., dict[str, int]]:
    def tell(
        names: Names = None,
        pid_file: PidFile = None,
        json: Json = False,
        version: Annotated[bool, version_option()] = False,
    ) -> dict[str, int]:
        answer = ask(_socket(pid_file), word, names or [])
        if json:
            print(json_module.dumps(answer, indent=2))
        else:
            for program in answer["programs"]:
                print(f"{program['name']}: {program['state']}{_details(program)}")
        done = all(program["state"] in _WANTED[word] for program in answer["programs"])
        return {"code": 0 if done else NOT_DONE}

    tell.__doc__ = _HELP[word]
    return tell


def _socket(pid_file: Optional[str]) -> str:
    path = control_path(pid_file)
    if path is None:
        raise UsageError("which supervisor? Name its pid file: --pid-file FILE")
    return path


def _show(answer: dict[str, Any]) -> None:
    lock = answer["supervisor"]["lock"]
    if lock is not None:
        token = "" if lock["token"] is None else f", token {lock['token']}"
        print(f"lock {lock['held']}{token}" if lock["held"] else f"waiting for lock {':'.join(lock['wanted'])}")
    rows = [("NAME", "STATE", "PID", "UPTIME", "RESTARTS", "LAST EXIT")]
    rows += [
        (
            program["name"],
            program["state"],
            str(program["pid"] or "-"),
            "-" if program["uptime"] is None else _time(program["uptime"]),
            str(program["restarts"]),
            _last_exit(program),
        )
        for program in answer["programs"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[5]]))


def _details(program: dict[str, Any]) -> str:
    if program["pid"] is not None:
        return f", process {program['pid']}"
    return f", last exit: {_last_exit(program)}" if program["last_exit"] is not None else ""


def _last_exit(program: dict[str, Any]) -> str:
    last = program["last_exit"]
    if last is None:
        return "-"
    how = last["signal"] if last["code"] is None else str(last["code"])
    return f"{how}, {_time(last['age'])} ago"


def _time(seconds: float) -> str:
    """As 12 s, 3:05, 4:03:05 or 2 d 4:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02d}"
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"
