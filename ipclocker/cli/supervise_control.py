"""supervise status, start, stop and restart: a running supervisor asked and told."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ..errors import OK, UsageError
from ..supervise.control_socket import ask, control_path
from ..supervise.state_machine import STANDBY, STOPPED, UP
from .command_line import CommandLine, argument, flag, option

NOT_DONE = 1  # exit code: it was asked for, and the program is not as it should be


class _Asking(CommandLine):
    """The common options of all that speak with a supervisor and print its answer."""

    names: list[str] = argument("[NAME...]", "Programs. [default: all]", many=True)
    pid_file: str | None = option(
        "The supervisor's pid file, beside which its socket is.",
        otherwise="that of this user's supervisor that has none",
    )
    as_json: bool = flag("Print JSON.", "--json")

    def run(self) -> int:
        """Ask the supervisor, and print its answer; the exit code."""
        answer = ask(_socket(self.pid_file), self.SPEC.name.split()[1], self.names)
        if self.as_json:
            print(json.dumps(answer, indent=2))
        else:
            self._print(answer)
        return self._exit_code(answer["programs"])

    def _print(self, answer: dict[str, Any]) -> None:
        raise NotImplementedError

    def _exit_code(self, programs: list[dict[str, Any]]) -> int:
        return OK


class Status(
    _Asking, name="supervise status", example="supervise status --pid-file /run/programs.pid web", interspersed=True
):
    """Show programs: name, state, pid, uptime, restarts, last exit.

    States: RUNNING; STARTING, up for less than a second; BACKOFF, it died and waits for its next start; STOPPING;
    STOPPED; STANDBY, the cluster lock is somebody else's; FATAL, it died too often. Exits with 69 if no supervisor
    answers.
    """

    def _print(self, answer: dict[str, Any]) -> None:
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


class _Telling(_Asking):
    """The common part of the commands that bring programs to one of the states WANTED."""

    WANTED: ClassVar[frozenset[str]] = UP | {STANDBY}

    def _print(self, answer: dict[str, Any]) -> None:
        for program in answer["programs"]:
            print(f"{program['name']}: {program['state']}{_details(program)}")

    def _exit_code(self, programs: list[dict[str, Any]]) -> int:
        return OK if all(program["state"] in self.WANTED for program in programs) else NOT_DONE


class Start(
    _Telling, name="supervise start", example="supervise start --pid-file /run/programs.pid web", interspersed=True
):
    """Start programs that were stopped, are FATAL, or wait for their next start. Waits until each has been up for a
    second; exits with 1 if one has not."""


class Stop(
    _Telling, name="supervise stop", example="supervise stop --pid-file /run/programs.pid web", interspersed=True
):
    """End programs, with all that they have started, until they are told to start. Waits until they have ended."""

    WANTED = frozenset({STOPPED})


class Restart(
    _Telling, name="supervise restart", example="supervise restart --pid-file /run/programs.pid web", interspersed=True
):
    """End programs and start them again. Waits as start does."""


def _socket(pid_file: str | None) -> str:
    path = control_path(pid_file)
    if path is None:
        raise UsageError("which supervisor? Name its pid file: --pid-file FILE")
    return path


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
