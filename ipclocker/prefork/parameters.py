"""The parameters of a ProcManager, with the names and defaults of FCGI::ProcManager, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from math import inf, isfinite, nan
from typing import Any, Callable, ClassVar, Generic, TypedDict, TypeVar, Union

from ..errors import UsageError

MOST_PROCESSES = 10_000  # workers; each takes two descriptors in the manager
Value = TypeVar("Value")


class ManagerParameters(TypedDict, total=False):
    """Some parameters of a ProcManager, which explains them."""

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


def _whole(value: Any, rule: str, lowest: float = -inf, highest: float = inf) -> int:
    if isinstance(value, bool):
        raise ValueError(f"it is a whole number {rule}")
    number = int(value)
    if number != float(value) or not lowest <= number <= highest:
        raise ValueError(f"it is a whole number {rule}")
    return number


_process_count = partial(_whole, rule=f"up to {MOST_PROCESSES}", highest=MOST_PROCESSES)
_count = partial(_whole, rule="from 0 on", lowest=0)


def _seconds(value: Any) -> float:
    number = nan if isinstance(value, bool) else float(value)
    if not isfinite(number) or number < 0:
        raise ValueError("it is a number of seconds from 0 on")
    return number


def _seconds_or_none(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else os.fsdecode(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError("it is True or False")
    return bool(value)


def _role(value: Any) -> str:
    if value not in ("manager", "server"):
        raise ValueError("it is manager or server")
    return str(value)


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"the environment variable {name} can't be '{text}': it is a whole number from 0 on")
    return int(text)


class _Parameter(Generic[Value]):
    """A parameter: its default, what returns a value as its type or raises ValueError, and a variable for the default.

    Of a manager it is a method that returns the parameter, after it was set if a value other than None is given.
    """

    def __init__(self, default: Value, check: Callable[[Any], Value], variable: str = "") -> None:
        self.default = default
        self.check = check
        self.variable = variable

    def __set_name__(self, owner: type[Parametrized], name: str) -> None:
        self._key = name.lstrip("_")
        owner._table[self._key] = self

    def __get__(self, instance: Parametrized | None, owner: type) -> Callable[..., Value]:
        if instance is None:  # as a function of the class
            return lambda manager, value=None: manager.pm_parameter(self._key, value)
        return partial(instance.pm_parameter, self._key)


class Parametrized:
    """The parameters, by one method for all of them, and by a method for each that FCGI::ProcManager has one for."""

    _table: ClassVar[dict[str, _Parameter[Any]]] = {}
    n_processes = _Parameter(0, _process_count)
    start_delay = _Parameter(0.0, _seconds)
    die_timeout = _Parameter[Union[float, None]](60.0, _seconds_or_none)
    pid_fname = _Parameter(None, _text_or_none)
    _pm_title = _Parameter[Union[str, None]]("perl-fcgi-pm", _text_or_none)  # FCGI::ProcManager has no method for it
    no_signals = _Parameter(False, _flag)
    role = _Parameter("manager", _role)
    rolling = _Parameter(True, _flag)
    max_requests = _Parameter(0, _count, "PM_MAX_REQUESTS")
    max_size = _Parameter(0, _count, "PM_MAX_SIZE")
    sizecheck_num_requests = _Parameter(1, _count, "PM_SIZECHECK_NUM_REQUESTS")
    request_timeout = _Parameter(0.0, _seconds)

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Raises UsageError for a value or an environment variable that means nothing, TypeError for a wrong name."""
        self._parameters = {
            key: _from_environment(each.variable, each.default) if each.variable else each.default
            for key, each in self._table.items()
        }
        self._set({key: value for key, value in given.items() if value is not None or not self._by_environment(key)})

    def pm_parameter(self, key: str, value: object = None) -> Any:
        """Return a parameter, after it was set unless the value is None.

        Raises UsageError for a value that means nothing, TypeError for a wrong name.
        """
        if value is not None:
            self._set({key: value})
        return self._parameters[self._known(key)]

    def _set(self, given: Mapping[str, Any]) -> None:
        self._parameters.update({self._known(key): self._checked(key, value) for key, value in given.items()})

    def _by_environment(self, key: str) -> bool:
        return self._table[self._known(key)].variable != ""

    def _known(self, key: str) -> str:
        if key not in self._table:
            raise TypeError(f"a ProcManager has no parameter '{key}'")
        return key

    def _checked(self, key: str, value: object) -> Any:
        try:
            return self._table[key].check(value)
        except (ValueError, TypeError, OverflowError) as problem:
            raise UsageError(f"the parameter {key} can't be {value!r}: {problem}") from None
