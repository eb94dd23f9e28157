"""Reads signals from a descriptor, as everything else that is waited for, with what is known of their sender.

A signal that the terminal sends (^C, ^Z, a hang-up) reaches each process of the foreground group by itself, so
a process that passes signals on must tell it from one that was sent to a single process. Linux shows that; elsewhere
it is taken for the terminal's if the terminal could have sent it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple

from . import libc

# Those that can't be caught, and those that tell of a fault in the very instruction.
_LEFT_ALONE = {signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
# Python has these two ignored at its start, whatever they were before; here nothing depends on them.
_PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}
_FROM_TERMINAL = {
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGHUP,
    signal.SIGWINCH,
    signal.SIGCONT,
}
_INFO = struct.Struct("IiiI112x")  # signalfd_siginfo(2): number, errno, code, sender
_SENT_BY_KERNEL = 0x80


class Signal(NamedTuple):
    """A signal that arrived.

    to_group: True if the terminal sent it to the whole foreground group
    sender: the pid of the process that sent it; 0 if that is not known
    """

    number: int
    to_group: bool
    sender: int = 0


class SignalReader:
    """Takes all signals that can be taken, to be read when `descriptor` is readable.

    To be made after the fork of a child that shall not inherit this.
    """

    def __init__(self) -> None:
        self._numbers = signal.valid_signals() - _LEFT_ALONE - _PYTHON_IGNORES
        self.ignored = {n for n in self._numbers if signal.getsignal(n) == signal.SIG_IGN}
        if signal.SIGCHLD in self.ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel keeps no status of a child
        self._deadly = {n for n in self._numbers - self.ignored if ends_by_default(n)}
        self._to_group = set(_FROM_TERMINAL)
        if leads_session():
            # A terminal that hangs up tells the leader only; the group hears of it when the leader has ended.
            self._to_group -= {signal.SIGHUP, signal.SIGCONT}
        descriptor = libc.signal_descriptor(self._numbers)
        if descriptor is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)
            self.descriptor = descriptor
            self._read = self._read_descriptor
        else:
            receiver, sender = socket.socketpair()
            self.descriptor = receiver.detach()
            os.set_blocking(self.descriptor, False)
            sender.setblocking(False)
            signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)
            for number in self._numbers:
                signal.signal(number, _do_nothing)
            self._read = self._read_numbers

    def read(self) -> list[Signal]:
        """Return the signals that have arrived since the last call, without waiting."""
        try:
            return self._read(os.read(self.descriptor, 128 * 32))
        except BlockingIOError:
            return []

    def is_deadly(self, number: int) -> bool:
        """Tell if this process would end by the signal if it did not read signals here."""
        return number in self._deadly

    @contextlib.contextmanager
    def by_default(self) -> Iterator[None]:
        """Let a deadly signal end this process at once within the `with` block."""
        self._take_deadly(False)
        try:
            yield
        finally:
            self._take_deadly(True)

    def _take_deadly(self, take: bool) -> None:
        if self._read == self._read_descriptor:
            signal.pthread_sigmask(signal.SIG_BLOCK if take else signal.SIG_UNBLOCK, self._deadly)
        else:
            for number in self._deadly:
                signal.signal(number, _do_nothing if take else signal.SIG_DFL)

    def _read_descriptor(self, data: bytes) -> list[Signal]:
        return [
            Signal(number, number in self._to_group and code == _SENT_BY_KERNEL, sender)
            for number, _, code, sender in _INFO.iter_unpack(data)
        ]

    def _read_numbers(self, data: bytes) -> list[Signal]:
        foreground = in_foreground()
        return [Signal(number, number in self._to_group and foreground) for number in data]


def in_foreground() -> bool:
    """Tell if this process belongs to the foreground group of its terminal."""
    return foreground_group() == os.getpgrp()


def foreground_group(give_to: int | None = None) -> int | None:
    """Return the foreground group of this process's terminal, None without one; first make `give_to` that group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    try:
        if give_to is not None:
            os.tcsetpgrp(terminal, give_to)
        return os.tcgetpgrp(terminal)
    except OSError:
        return None
    finally:
        os.close(terminal)


def leads_session() -> bool:
    """Tell if this process leads its session, so that no shell watches over it."""
    return os.getsid(0) == os.getpid()


def ends_by_default(number: int) -> bool:
    """Tell if the signal ends a process that has not asked for anything else (signal(7))."""
    return number not in {
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        getattr(signal, "SIGINFO", signal.SIGURG),
    }


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing: a handler makes the signal neither ignored nor deadly, and Python writes a byte for it."""
