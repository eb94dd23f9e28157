"""The process that a lock belongs to: how a client names its own to the server, and how it looks for another holder's.

A server frees the lock of a process that is gone. So what is said here of a process must be true of that one alone.
"""

from __future__ import annotations

import contextlib
import os
import time

from ...net.address import Address, own_host_name
from ...net.text import decode_text, encode_text
from ...process.identity import exists, identify
from ...process.viewpoint import own_view
from ..wire.replies import LookFor
from .connection import ANSWER_WITHIN, ServerConnection, Value, Wait
from .settings import LockSettings

Variables = dict[str, Value]  # of a request


def holder_variables(settings: LockSettings) -> Variables:
    """Return the variables that name the process of the holder, so that the lock is freed when that is gone.

    Unless the program has asked for that (autounlock), it is `process 1` that asks, and only if everything is known
    that tells the process from others. A classic server skips that word: one ends when it can't look up a hostname
    for `autounlock`, which a program that runs well with it today must not bring about.
    """
    if settings.autounlock is False:
        return {"autounlock": 0}
    if settings.hostname is not None:
        named: Variables = {"pid": settings.pid or os.getpid(), "hostname": encode_text(settings.hostname)}
    elif settings.pid is None:
        named = _own_variables()
    else:
        named = _variables_of(settings.pid)
    if not named or (settings.autounlock is None and not {"start", "pidns", "boot"} <= named.keys()):
        return {"autounlock": 0}
    asks: Variables = {"autounlock": 1} if settings.autounlock else {"autounlock": 0, "process": 1}
    return {**asks, **named}


_own: tuple[tuple[int, str], Variables] = ((0, ""), {})


def _own_variables() -> Variables:
    """Return the variables that name this process, which stay as they are: finding them takes longer than a lock."""
    global _own
    key = (os.getpid(), own_host_name())
    if _own[0] != key:
        _own = (key, _variables_of(os.getpid()))
    return _own[1]


def _variables_of(pid: int) -> Variables:
    """Return the variables that name a process of this host.

    None, if its number means another process to others: they would look for that one.
    """
    if not own_view().can_name_processes:
        return {}
    variables: Variables = {"pid": pid, "hostname": encode_text(own_host_name())}
    process = identify(pid)
    if process.boot:
        told = {"start": process.start, "pidns": process.pidns, "timens": process.timens}
        variables.update({name: value for name, value in told.items() if value is not None})
        variables.update(boot=process.boot.encode(), machine=process.machine.encode())
    return variables


def is_gone(sought: LookFor) -> bool:
    """Look for a holder's process; True only if it is of this host, and does not exist.

    False for one whose number may mean another process here, as in a container that has its host's name.
    """
    is_of_this_host = decode_text(sought.host) == own_host_name() and own_view().sees_whole_host
    return is_of_this_host and exists(sought.pid) is False


def report_gone(sought: LookFor, server: Address, wait: Wait) -> None:
    """Tell the server that a process is gone, if it can be reached: one that can't look for itself frees its locks.

    A server reads nothing more from a connection whose LOCK waits, so this takes one of its own.
    """
    with contextlib.suppress(OSError):
        connection = ServerConnection.connect(server, time.monotonic() + ANSWER_WITHIN, wait)
        connection.send(b"DEAD_PID %b %d\n\nEOF\n\n" % (sought.host, sought.pid))
        connection.close()
