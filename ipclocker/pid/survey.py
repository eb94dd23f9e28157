"""Looking at many processes of many hosts together: all questions go out at once, and all waits are one wait."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..errors import ServerUnavailable
from .client import PAUSE, PidStat

UP, DOWN, UNKNOWN, HOST_DOWN = "up", "down", "unknown", "host_down"
_STATES = {True: UP, False: DOWN, None: UNKNOWN}
Place = tuple[str, int]  # a host and a pid on it


def survey(stat: PidStat, places: Sequence[Place]) -> dict[Place, str]:
    """Find the state of each process: UP, DOWN, UNKNOWN, or HOST_DOWN where no server answers. Raises UsageError.

    Silent hosts, even if they are many, take as long as one: PAUSE seconds for each of the tries.
    """
    states = dict.fromkeys(places, HOST_DOWN)
    stat.look_up(host for host, _ in places)
    waiting = dict.fromkeys(places)
    for _ in range(stat.tries):
        _ask(stat, waiting, states)
        until = time.monotonic() + PAUSE
        while waiting and time.monotonic() < until:
            _take(stat, until - time.monotonic(), waiting, states)
        if not waiting:
            break
    return states


def _ask(stat: PidStat, waiting: dict[Place, None], states: dict[Place, str]) -> None:
    for place in list(waiting):
        if place not in waiting:
            continue  # answered meanwhile
        host, pid = place
        try:
            stat.pid_request(host, pid)
        except ServerUnavailable:
            del waiting[place]
            continue
        _take(stat, 0.0, waiting, states)  # or a great many answers would find no room


def _take(stat: PidStat, timeout: float, waiting: dict[Place, None], states: dict[Place, str]) -> None:
    found = stat.recv_stat(max(timeout, 0.0))
    if found is not None:
        pid, exists, host = found
        if (host, pid) in waiting:
            states[(host, pid)] = _STATES[exists]
            del waiting[(host, pid)]
