"""The settings of a supervisor: the parameters of a Supervisor, checked."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypedDict, Union

from ..errors import UsageError
from ..process.restart_policy import FIRST_PAUSE, GOOD_RUN, LONGEST_PAUSE, RestartPolicy, parse_give_up, shortest
from ..process.signal_names import signal_number
from .managed_program import StopPolicy

if TYPE_CHECKING:
    from typing import Unpack

LEASE = 30.0  # seconds: another host goes on so much after a crash; two missed renewals are no loss yet
_LEAST_PAUSE = 0.001  # seconds; without a pause a program that can't run would take all of a processor


class SupervisorParameters(TypedDict, total=False):
    """The parameters of a Supervisor. All times are in seconds.

    stop_signal: what programs are ended by, as "TERM" or 15; default: TERM
    stop_timeout: from that signal until what is left gets SIGKILL; default: 10
    first_pause, longest_pause: before a program that died is started again: the pauses double from the one to the
        other; default: 0.1 and 30
    good_run: how long a program has to live for earlier deaths to be forgotten; default: 60
    give_up: "5/10": a program that died 5 times in 10 seconds is not started again; default: never
    fatal_exit: True if the supervisor ends then, with ProgramFailed; default: False
    output: a file for what programs write, in lines behind the time and the program's name; default: stdout
    output_dir: a folder with a file NAME.log for each program's output, as it is; in place of `output`
    lock: the name of a lock, or several of which the first that is free is taken: programs run only while it is held
    lease: how long the lock is held at a time; default: 30
    host, port, path: where the lock server is, as for a Locker
    """

    stop_signal: Union[str, int]
    stop_timeout: float
    first_pause: float
    longest_pause: float
    good_run: float
    give_up: Union[str, None]
    fatal_exit: bool
    output: Union[str, None]
    output_dir: Union[str, None]
    lock: Union[str, Iterable[str], None]
    lease: float
    host: Union[str, Iterable[str], None]
    port: Union[str, int, None]
    path: Union[str, None]


class SupervisorSettings:
    """The parameters that were given, checked, and the defaults of the others."""

    def __init__(self, **given: Unpack[SupervisorParameters]) -> None:
        """Raises UsageError for a value that means nothing, TypeError for an unknown parameter."""
        unknown = given.keys() - SupervisorParameters.__annotations__.keys()
        if unknown:
            raise TypeError(f"a Supervisor has no parameter '{min(unknown)}'")
        number = signal_number(str(given.get("stop_signal", "TERM")))
        self.stop_policy = StopPolicy(number, _seconds("stop_timeout", given.get("stop_timeout", 10.0)))
        self.fatal_exit = bool(given.get("fatal_exit", False))
        self.output = _absolute(given.get("output"))
        self.output_dir = _absolute(given.get("output_dir"))
        if self.output is not None and self.output_dir is not None:
            raise UsageError("output goes to one file, or to one for each program in a folder: not to both")
        self._pauses = {
            "first_pause": _seconds("first_pause", given.get("first_pause", FIRST_PAUSE), _LEAST_PAUSE),
            "longest_pause": _seconds("longest_pause", given.get("longest_pause", LONGEST_PAUSE), _LEAST_PAUSE),
        }
        self._good_run = _seconds("good_run", given.get("good_run", GOOD_RUN))
        give_up = given.get("give_up")
        self.give_up = None if give_up is None else parse_give_up(give_up)
        self._check_give_up()
        self.lock: dict[str, Any] | None = self._lock_parameters(given)

    def new_policy(self) -> RestartPolicy:
        """Return the restart policy of one program."""
        return RestartPolicy(random.random, **self._pauses, good_run=self._good_run, give_up=self.give_up)

    def _check_give_up(self) -> None:
        if self.fatal_exit and self.give_up is None:
            raise UsageError("nothing is ever fatal: say when to give up, as 5/10, or leave the fatal exit out")
        if self.give_up is None:
            return
        least = shortest(self.give_up.deaths, **self._pauses)
        if least >= self.give_up.seconds:
            raise UsageError(
                f"'{self.give_up}' never happens: the pauses between {self.give_up.deaths} deaths alone take "
                f"{least:.1f} s: give fewer deaths, more seconds or a smaller longest pause"
            )

    def _lock_parameters(self, given: SupervisorParameters) -> dict[str, Any] | None:
        names = given.get("lock")
        if names is None:
            return None
        from ..lock.client.settings import LockSettings  # only here: most do without

        parameters: dict[str, Any] = {
            "lock": names if isinstance(names, str) else tuple(names),
            "lease": given.get("lease", LEASE),
            **{name: given[name] for name in ("host", "port", "path") if given.get(name) is not None},  # type: ignore[literal-required]
        }
        if not parameters["lease"]:
            raise UsageError("lease is '0': the programs have to end when the lock can't be renewed; 30 is usual")
        where = LockSettings(**parameters).endpoint
        parameters.pop("port", None)
        if where.path is None:
            parameters["port"] = where.port
        else:
            parameters["path"] = _absolute(where.path)
        return parameters


def _absolute(path: str | None) -> str | None:
    """Return a path to the same file for a process that changes its folder, as one in the background does."""
    return None if path is None else os.path.abspath(path)


def _seconds(name: str, value: float, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e12:
        raise UsageError(f"{name} is '{value}': it takes a number of seconds" + (", more than 0" if least else ""))
    return float(value)
