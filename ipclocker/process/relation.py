"""Whose word about a process counts: what one place (viewpoint.py) is to that of a process (identity.py).

Nothing that is sent over a network proves where a process is: a NAT gateway, a tunnel and a container have the address
of another host, containers and images share a machine id, and many hosts have one name. So:

    the same boot and pid namespace         the process is seen from here, so whether it is there is looked up
    the same boot, another pid namespace    who sees all processes of this kernel can tell (pid/namespaces.py)
    another boot                            the machine was booted again, and the process is gone; but only if
                                            everything says that it is the same machine (`_was_rebooted`)
    all else                                nobody here can tell, which frees nothing
"""

from __future__ import annotations

import time
from math import inf

from .identity import ProcessIdentity
from .viewpoint import HOST_PIDNS, HOST_TIMENS, View

HERE, ON_THIS_KERNEL, GONE, UNSEEN = "here", "on this kernel", "gone", "unseen"


def relation(process: ProcessIdentity, view: View, silent: float | None = None) -> str:
    """Return what `view` is to a process that told its boot: HERE, ON_THIS_KERNEL, GONE or UNSEEN.

    `silent`: seconds since the process's kernel was last heard of; None if that is not known. One that told no boot
    (a classic client) is UNSEEN: only who knows its host by other means may look for its number.
    """
    if not process.boot or not view.boot:
        return UNSEEN
    if process.boot != view.boot:
        return GONE if silent is not None and _was_rebooted(process, view, silent) else UNSEEN
    if process.pidns is None or view.pidns is None:
        return UNSEEN
    return HERE if process.pidns == view.pidns else ON_THIS_KERNEL


def comparable_start(process: ProcessIdentity, view: View) -> int | None:
    """Return the process's start time if `view` would read the same one; a time namespace shifts them."""
    return process.start if process.timens in (None, view.timens) else None


def _was_rebooted(process: ProcessIdentity, view: View, silent: float) -> bool:
    """Tell if a process of another boot is of this very machine, from before it was booted last.

    Machines that are copies of one image agree in all names. But a kernel that has been up for longer than the other
    has been silent was up beside it, so it is another machine.
    """
    return (
        process.machine != ""
        and process.machine == view.machine
        and process.host == view.host
        and process.host.partition(".")[0] not in ("", "localhost", "(none)")
        and process.pidns == view.pidns == HOST_PIDNS
        and {process.timens, view.timens} <= {None, HOST_TIMENS}
        and _uptime() < silent
    )


def _uptime() -> float:
    """Return for how many seconds this kernel has been up; infinity where that is not known."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return inf if clock is None else time.clock_gettime(clock)
