"""Takes a lock for a process that runs already, and gives it back: lockersh --for, as its caller meets it.

This process ends as soon as the lock is had; what holds it is a keeper in the background (keeper.py). A keeper that
this process has started waits for the lock for as long as this process does: if that is interrupted, it gives up. A
grant stays only if this process has said that it has told its caller of it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import sys
import time
from math import inf
from typing import NoReturn

from ...errors import (
    INTERNAL,
    NOT_ALLOWED,
    OK,
    TEMPORARY,
    IpclockerError,
    LockBusy,
    ServerUnavailable,
    UsageError,
)
from ...lock.client.settings import LockSettings
from ...lock.grant_variables import grant_variables
from ...net.text import decode_text, encode_text
from ...process.identity import ProcessIdentity, exists, identify
from ...process.send_signal import send_signal
from ..options import RunOptions
from ..under_lock import Reporter
from .channel import Channel, Silent, channels_to
from .control import Message
from .keeper import Keeper, Watched
from .terms import Wanted, absolute

_TRIES = 10  # to find a keeper or to become one, while others come and go
_PAUSE = 0.02  # seconds between two
_PATIENCE = 10.0  # seconds without a word from a keeper that is not busy with anything
_MORE = 30.0  # seconds beyond the time that a keeper was given; its answer comes before, unless it is stopped


def hold_for(pid: int, settings: LockSettings, options: RunOptions, prints: bool, debug: bool = False) -> int:
    """Take the lock for a process; return the exit code. `prints`: say its name and token as assignments for sh.

    Raises UsageError if there is no such process, LockBusy, and IpclockerError with the exit code of what the keeper
    has met, or because it is another user's process.
    """
    try:
        watched = Watched(pid)
    except ProcessLookupError:
        raise _missing(pid) from None
    process = _checked(watched.process)
    settings = _for_keeper(settings, process)
    wanted = Wanted.of(settings)
    if settings.lease and pid == 1:
        raise UsageError("process 1 can't be ended, so it can't have a lease: leave --lease out")
    deadline = inf if options.wait is None else time.monotonic() + options.wait
    why = ""
    for _ in range(_TRIES):
        channel, answer = _joined(process, wanted, options, deadline)
        if channel is None:
            channel = _start_keeper(watched, settings, options, debug)
            answer = _follow(channel, process, options, inf)
        assert answer is not None
        if "grants" in answer:
            _take(channel, process, answer, prints)
            return OK
        channel.close()
        if "again" not in answer:
            _raise(answer)
        why = answer["again"]
        _checked(process)
        time.sleep(_PAUSE)
    raise IpclockerError(f"the lock could not be taken for process {pid}: {why}")


def release_for(pid: int, names: list[str]) -> int:
    """Give locks of these names back that were taken for a process; return the exit code.

    What was taken together is given back together. Raises UsageError if there is no such process, ServerUnavailable if
    nothing of these names is held, and IpclockerError with an exit code: no server answers, or it was lost before.
    """
    process = _checked(identify(pid))
    waited_for = []
    for channel in channels_to(process):
        channel.say({"ask": "release", "names": names})
        answer = _hear(channel, process, _PATIENCE)
        if "within" in answer:
            waited_for.append((channel, answer["within"]))
    if not waited_for:
        listed = ", ".join(names)
        raise ServerUnavailable(f"nothing holds lock {listed} for process {pid}: lockstat show says who has it")
    problem = None
    for channel, within in waited_for:
        answer = _hear(channel, process, within + _MORE)
        if "released" not in answer and "again" not in answer:  # it has ended meanwhile, so there is nothing to release
            problem = answer
    if problem is not None:
        _raise(problem)
    return OK


def _missing(pid: int) -> UsageError:
    return UsageError(f"there is no process {pid} to hold a lock for: in a script, --for $$ is its own")


def _checked(process: ProcessIdentity) -> ProcessIdentity:
    """Return a process that is there, and this user's. Raises UsageError, IpclockerError."""
    if exists(process.pid, process.start) is False:
        raise _missing(process.pid)
    try:
        send_signal(process, 0)
    except PermissionError:
        text = f"process {process.pid} is another user's: only that user and root may do this"
        raise IpclockerError(text, NOT_ALLOWED) from None
    return process


def _for_keeper(settings: LockSettings, process: ProcessIdentity) -> LockSettings:
    """Return the same settings for a keeper, which is in another folder; they say what runs under the lock."""
    command = ""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/cmdline", "rb") as file:
        command = decode_text(file.read().rstrip(b"\0").replace(b"\0", b" "))
    path = settings.endpoint.path
    changed = settings.changed(command=command)
    return changed if path is None else changed.changed(path=absolute(path))


def _joined(
    process: ProcessIdentity, wanted: Wanted, options: RunOptions, deadline: float
) -> tuple[Channel | None, Message | None]:
    """Ask the keepers of the process; return the one that has this lock, or will have it, with its answer."""
    for channel in channels_to(process, wanted.key):
        channel.say({"ask": "hold", "wanted": wanted})
        answer = _hear(channel, process, _PATIENCE)
        if "other" in answer:
            channel.close()
            continue
        if "joined" in answer:
            answer = _follow(channel, process, options, deadline)
        return channel, answer
    return None, None


def _follow(channel: Channel, process: ProcessIdentity, options: RunOptions, deadline: float) -> Message:
    """Show how the keeper gets on with the lock; return its answer. Raises LockBusy at the deadline."""
    reporter = Reporter(options.verbose, options.quiet)
    latest = inf if options.wait is None else time.monotonic() + options.wait + _MORE
    while True:
        until = min(deadline, latest, time.monotonic() + 1.0 if reporter.on_terminal else inf)
        try:
            message = channel.hear(until)
        except Silent:
            if time.monotonic() >= latest:
                raise _silent(process) from None
            if time.monotonic() >= deadline:
                raise LockBusy(f"process {process.pid} waits for the lock elsewhere, and has not got it yet") from None
            reporter.tick()
            continue
        if message is None:
            return _gone(process)
        if "waiting" in message:
            reporter.waiting(*message["waiting"])
        elif "obtained" in message:
            reporter.obtained()
        elif "retry" in message:
            reporter.retry(*message["retry"])
        elif "say" in message:
            reporter.report(message["say"])
        else:
            return message


def _hear(channel: Channel, process: ProcessIdentity, seconds: float) -> Message:
    """Return the next message of a keeper. Raises ServerUnavailable if it is silent for so many seconds."""
    try:
        message = channel.hear(time.monotonic() + seconds)
    except Silent:
        raise _silent(process) from None
    return {"again": "it has ended"} if message is None else message


def _silent(process: ProcessIdentity) -> ServerUnavailable:
    return ServerUnavailable(f"what keeps the lock for process {process.pid} does not answer: it may be stopped")


def _gone(process: ProcessIdentity) -> Message:
    text = f"what was to keep the lock for process {process.pid} was killed"
    return {"error": text, "code": INTERNAL}


def _start_keeper(watched: Watched, settings: LockSettings, options: RunOptions, debug: bool) -> Channel:
    """Start a keeper in the background. Raises IpclockerError if there can be no further process."""
    ours, theirs = socket.socketpair()
    try:
        between = os.fork()
    except OSError as error:
        raise IpclockerError(f"cannot make a process that keeps the lock: {error.strerror}") from None
    if not between:
        try:
            if os.fork() == 0:
                ours.close()
                Keeper(watched, settings, options, theirs).run(debug)
            os._exit(OK)
        finally:
            os._exit(INTERNAL)
    theirs.close()
    with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored the kernel keeps no status
        os.waitpid(between, 0)
    return Channel(ours)


def _take(channel: Channel, process: ProcessIdentity, answer: Message, prints: bool) -> None:
    """Tell the caller of the grants, and then the keeper that this was done. Raises OSError, IpclockerError."""
    if prints:
        sys.stdout.buffer.write(encode_text(_assignments(answer)))
        sys.stdout.buffer.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the caller is to see this end as a good one
    if not channel.say({"ask": "taken"}):
        _raise(_gone(process))


def _assignments(answer: Message) -> str:
    """Return the grant as lines for sh, one for each variable that lockersh gives to its command."""
    grants = [(encode_text(name), token) for name, token in answer["grants"]]
    variables = grant_variables(grants, answer["space"])
    lines = [
        f"unset {name}\n" if value is None else f"{name}={shlex.quote(value)}\n" for name, value in variables.items()
    ]
    return "".join(lines)


def _raise(answer: Message) -> NoReturn:
    text, code = answer["error"], answer["code"]
    raise LockBusy(text) if code == TEMPORARY else IpclockerError(text, code)
