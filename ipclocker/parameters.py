"""Checks of the parameters that Python programs give: one sentence with the parameter's name and value."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from math import inf
from typing import Any, Optional, Union

from .errors import UsageError

HOSTS = "the name or address of a host, or a list of them"
_LONGEST = 100  # characters of a value in a message


class _Unchanged:
    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Any = _Unchanged()  # the default of a parameter that stays as it was


def given(names: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a method, from its `locals()` as it begins, but for those that are UNCHANGED."""
    return {
        name: value for name, value in names.items() if name not in ("self", "__class__") and value is not UNCHANGED
    }


def wrong(name: str, value: object, takes: str) -> UsageError:
    """Make the error for a parameter's value, and say what it takes."""
    shown = repr(value)
    return UsageError(f"{name} is {shown if len(shown) <= _LONGEST else shown[:_LONGEST] + '...'}: it takes {takes}")


def check_text(takes: str, **parameters: object) -> None:
    """Raise UsageError for a parameter that is neither a string nor None."""
    for name, value in parameters.items():
        if not isinstance(value, (str, type(None))):
            raise wrong(name, value, takes)


def check_flags(**parameters: object) -> None:
    """Raise UsageError for a parameter that is neither True nor False."""
    for name, value in parameters.items():
        if not isinstance(value, (bool, int)) or value not in (0, 1):
            raise wrong(name, value, "True or False")


def check_call(name: str, value: object) -> None:
    """Raise UsageError for a parameter that can't be called and is not None."""
    if value is not None and not callable(value):
        raise wrong(name, value, "a function, or None")


def check_whole(name: str, value: object, least: int, most: Optional[int] = None) -> None:
    """Raise UsageError for a parameter that is no whole number, or not within these bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= (value if most is None else most):
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        raise wrong(name, value, f"a whole number, {bounds}")


def check_seconds(name: str, value: object, least: float = 0.0) -> None:
    """Raise UsageError for a parameter that is no number (as NaN is none), or less than this one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= inf:
        raise wrong(name, value, f"a number of seconds, {least:g} or more")


def text_list(name: str, value: Union[str, Iterable[str]], takes: str) -> list[str]:
    """Return the strings of a parameter that takes one or several. Raises UsageError for none, and for all else."""
    texts = [value] if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) else list(value)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise wrong(name, value, takes)
    return texts


def socket_list(name: str, value: Optional[Iterable[socket.socket]]) -> tuple[socket.socket, ...]:
    """Return the sockets of a parameter that takes several, or none. Raises UsageError."""
    sockets = () if value is None else tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(sock, socket.socket) for sock in sockets) or isinstance(value, socket.socket):
        raise wrong(name, value, "a list of sockets, or None")
    return sockets
