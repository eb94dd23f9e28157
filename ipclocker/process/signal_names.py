"""Names of signals, as kill(1) takes them."""

from __future__ import annotations

import signal

from ..errors import UsageError


def signal_number(text: str) -> int:
    """Return the number of a signal given as "HUP", "SIGHUP", "-HUP", "1" or "-1". Raises UsageError for any other."""
    name = text.upper().removeprefix("-").removeprefix("SIG")
    member = signal.Signals.__members__.get(f"SIG{name}")
    number = int(name) if name.isascii() and name.isdigit() else _real_time(name) if member is None else int(member)
    if number not in signal.valid_signals():
        raise UsageError(f"the signal '{text}' is not known: give a name as HUP or a number as 1")
    return number


def _real_time(name: str) -> int | None:
    """Return the number of a signal that is counted from another: RTMIN+1 or RTMAX-1."""
    base, offset = name[:5], name[5:]
    if not hasattr(signal, "SIGRTMIN") or not offset[1:].isdigit() or (base, offset[0]) not in _FROM:
        return None
    number = signal.SIGRTMIN + int(offset) if base == "RTMIN" else signal.SIGRTMAX + int(offset)
    return number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else None


_FROM = {("RTMIN", "+"), ("RTMAX", "-")}


def signal_name(number: int) -> str:
    """Return a signal's name without "SIG", as "HUP"; its number if it has no name."""
    try:
        return signal.Signals(number).name[3:]
    except ValueError:
        return str(number)
