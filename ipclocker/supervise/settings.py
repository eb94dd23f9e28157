"""The settings of a supervisor: the parameters of a Supervisor, checked."""

from __future__ import annotations

import os
import random
from typing import Any

from ..errors import UsageError
from ..parameters import HOSTS, check_flags, check_text, text_list, wrong
from ..process.restart_policy import RestartPolicy, parse_give_up, shortest
from ..process.signal_names import signal_number
from .managed_program import StopPolicy

_LEAST_PAUSE = 0.001  # seconds; without a pause a program that can't run would take all of a processor


class SupervisorSettings:
    """The parameters of a Supervisor, which has their types and explains them, checked."""

    def __init__(self, **given: Any) -> None:
        """Check all of them. Raises UsageError for a value that means nothing."""
        if not isinstance(given["stop_signal"], (str, int)):
            raise wrong("stop_signal", given["stop_signal"], "the name of a signal or its number")
        number = signal_number(str(given["stop_signal"]))
        self.stop_policy = StopPolicy(number, _seconds("stop_timeout", given["stop_timeout"]))
        check_flags(fatal_exit=given["fatal_exit"])
        self.fatal_exit = bool(given["fatal_exit"])
        check_text("the name of a file", output=given["output"], path=given["path"])
        check_text("the name of a folder", output_dir=given["output_dir"])
        self.output = _absolute(given["output"])
        self.output_dir = _absolute(given["output_dir"])
        if self.output is not None and self.output_dir is not None:
            raise UsageError("output goes to one file, or to one for each program in a folder: not to both")
        self._pauses = {name: _seconds(name, given[name], _LEAST_PAUSE) for name in ("first_pause", "longest_pause")}
        self._good_run = _seconds("good_run", given["good_run"])
        check_text("deaths and seconds, as 5/10", give_up=given["give_up"])
        self.give_up = None if given["give_up"] is None else parse_give_up(given["give_up"])
        self._check_give_up()
        self.lock = None if given["lock"] is None else _lock_parameters(given)

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


def _lock_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of the Locker."""
    from ..lock.client.settings import LockSettings  # only here: most do without
    from ..process.tree import require_sight

    lock, host = given["lock"], given["host"]
    names = lock if isinstance(lock, str) else tuple(text_list("lock", lock, "the name of a lock, or several"))
    if host is not None:
        host = text_list("host", host, HOSTS)
    require_sight("--lock")
    where = {"lock": names, "host": host, "port": given["port"], "path": given["path"]}
    parameters = {"lease": given["lease"], **{name: value for name, value in where.items() if value is not None}}
    if parameters["lease"] == 0:
        raise UsageError("lease is '0': the programs have to end when the lock can't be renewed; 30 is usual")
    found = LockSettings(**parameters).endpoint
    parameters.pop("port", None)
    if found.path is None:
        parameters["port"] = found.port
    else:
        parameters["path"] = _absolute(found.path)
    return parameters


def _absolute(path: str | None) -> str | None:
    """Return a path to the same file for a process that changes its folder, as one in the background does."""
    return None if path is None else os.path.abspath(path)


def _seconds(name: str, value: float, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e12:
        raise UsageError(f"{name} is '{value}': it takes a number of seconds" + (", more than 0" if least else ""))
    return float(value)
