"""The parameters of a ProcManager, with the names and defaults of FCGI::ProcManager, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import isfinite
from typing import Any, Callable, TypedDict, Union

from ..errors import UsageError

MOST_PROCESSES = 10_000


class Parameters(TypedDict, total=False):
    """What a ProcManager may be told.

    n_processes: how many workers; below 1, requests are handled in this process; default: 10
    start_delay: the least seconds between the starts of two workers; default: 0
    die_timeout: the seconds that workers have to end before they are killed; 0 or None: as long as it takes;
        default: 60
    pid_fname: the file that names the manager's process; default: none
    pm_title: the name of the manager's process, as ps(1) shows it; default: perl-fcgi-pm
    no_signals: whether signals other than SIGCHLD are left alone; default: False
    role: "manager" or "server", which a process is set to as it becomes one
    rolling: whether on SIGHUP each worker is told to stop when its replacement is up, rather than all at once;
        default: True
    max_requests: after how many requests a worker ends; 0: never; default: the environment's PM_MAX_REQUESTS, 0
    max_size: the kilobytes of resident memory above which a worker ends after its request; 0: any; default: the
        environment's PM_MAX_SIZE, 0
    sizecheck_num_requests: after how many requests each the size is looked at; default: the environment's
        PM_SIZECHECK_NUM_REQUESTS, 1
    request_timeout: the seconds that a request may take before the manager kills its worker; 0: any; default: 0
    """

    n_processes: int
    start_delay: float
    die_timeout: Union[float, None]
    pid_fname: Union[str, None]
    pm_title: Union[str, None]
    no_signals: bool
    role: str
    rolling: bool
    max_requests: int
    max_size: int
    sizecheck_num_requests: int
    request_timeout: float


def defaults(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The parameters that nobody gave. Raises UsageError for an environment variable that means nothing."""
    return {
        "n_processes": 10,
        "start_delay": 0,
        "die_timeout": 60,
        "pid_fname": None,
        "pm_title": "perl-fcgi-pm",
        "no_signals": False,
        "role": "manager",
        "rolling": True,
        "max_requests": _from_environment(environment, "PM_MAX_REQUESTS", 0),
        "max_size": _from_environment(environment, "PM_MAX_SIZE", 0),
        "sizecheck_num_requests": _from_environment(environment, "PM_SIZECHECK_NUM_REQUESTS", 1),
        "request_timeout": 0,
    }


class Parametrized:
    """Parameters, by the one method for all of them and those for some."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._parameters = defaults()
        self._set(given)

    def pm_parameter(self, key: str, value: object = None) -> Any:
        """A parameter, after it was set unless the value is None. Raises UsageError, or TypeError for a wrong name."""
        if value is not None:
            self._set({key: value})
        if key not in self._parameters:
            raise TypeError(f"a ProcManager has no parameter '{key}'")
        return self._parameters[key]

    def n_processes(self, value: int | None = None) -> int:
        """How many workers there shall be, after it was set if given."""
        return int(self.pm_parameter("n_processes", value))

    def no_signals(self, value: bool | None = None) -> bool:
        """Whether signals are left alone, after it was set if given."""
        return bool(self.pm_parameter("no_signals", value))

    def pid_fname(self, value: str | None = None) -> str | None:
        """The name of the pid file, after it was set if given."""
        name: str | None = self.pm_parameter("pid_fname", value)
        return name

    def die_timeout(self, value: float | None = None) -> float | None:
        """The seconds that workers have to end, after it was set if given."""
        seconds: float | None = self.pm_parameter("die_timeout", value)
        return seconds

    def role(self, value: str | None = None) -> str:
        """What this process is, "manager" or "server", after it was set if given."""
        return str(self.pm_parameter("role", value))

    def start_delay(self, value: float | None = None) -> float:
        """The least seconds between two starts, after it was set if given."""
        return float(self.pm_parameter("start_delay", value))

    def max_requests(self, value: int | None = None) -> int:
        """After how many requests a worker ends, after it was set if given."""
        return int(self.pm_parameter("max_requests", value))

    def max_size(self, value: int | None = None) -> int:
        """Above how many kilobytes of memory a worker ends, after it was set if given."""
        return int(self.pm_parameter("max_size", value))

    def sizecheck_num_requests(self, value: int | None = None) -> int:
        """After how many requests each its size is looked at, after it was set if given."""
        return int(self.pm_parameter("sizecheck_num_requests", value))

    def request_timeout(self, value: float | None = None) -> float:
        """The seconds that a request may take, after it was set if given."""
        return float(self.pm_parameter("request_timeout", value))

    def rolling(self, value: bool | None = None) -> bool:
        """Whether workers are renewed one by one, after it was set if given."""
        return bool(self.pm_parameter("rolling", value))

    def _set(self, given: Mapping[str, Any]) -> None:
        self._parameters.update({key: _checked(key, value) for key, value in given.items()})


def _checked(key: str, value: object) -> Any:
    """A parameter's value, as its type. Raises UsageError if it means nothing, TypeError if there is no such one."""
    check = _CHECKS.get(key)
    if check is None:
        raise TypeError(f"a ProcManager has no parameter '{key}'")
    try:
        return check(value)
    except (ValueError, TypeError, OverflowError) as problem:
        raise UsageError(f"the parameter {key} can't be {value!r}: {problem}") from None


def _number(value: Any) -> int:
    number = int(value)
    if number != float(value) or number > MOST_PROCESSES:
        raise ValueError(f"it is a whole number up to {MOST_PROCESSES}")
    return number


def _count(value: Any) -> int:
    number = int(value)
    if number != float(value) or number < 0:
        raise ValueError("it is a whole number from 0 on")
    return number


def _seconds(value: Any) -> float:
    number = float(value)
    if not isfinite(number) or number < 0:
        raise ValueError("it is a number of seconds from 0 on")
    return number


def _seconds_or_none(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else os.fsdecode(value)


def _role(value: Any) -> str:
    if value not in ("manager", "server"):
        raise ValueError("it is manager or server")
    return str(value)


def _from_environment(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environment.get(name, "")
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"the environment variable {name} can't be '{text}': it is a whole number from 0 on")
    return int(text)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "n_processes": _number,
    "start_delay": _seconds,
    "die_timeout": _seconds_or_none,
    "pid_fname": _text_or_none,
    "pm_title": _text_or_none,
    "no_signals": bool,
    "role": _role,
    "rolling": bool,
    "max_requests": _count,
    "max_size": _count,
    "sizecheck_num_requests": _count,
    "request_timeout": _seconds,
}
