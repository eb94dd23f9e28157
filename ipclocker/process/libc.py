"""System calls that Python has no function for.

Where one is missing the functions here return False or None and never raise: what is built on them is missing, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_SFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK

try:
    import ctypes

    _libc: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True)
except (ImportError, OSError):  # an interpreter that was built without it
    _libc = None


def die_with_parent(number: int) -> bool:
    """Have the kernel send this process a signal when the thread that made it ends; False if it can't (prctl(2))."""
    return _prctl(_PR_SET_PDEATHSIG, number)


def leave_no_core() -> bool:
    """Have no core dumped when this process ends, not even to a program that takes dumps; False if that can't be."""
    return _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans(adopt: bool = True) -> bool:
    """Have the kernel make this process the parent of all below it whose own parent ends; False if it can't."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def _prctl(what: int, value: int) -> bool:
    prctl = getattr(_libc, "prctl", None)
    return prctl is not None and int(prctl(what, value, 0, 0, 0)) == 0


def signal_descriptor(numbers: Iterable[int]) -> int | None:
    """Open a descriptor from which blocked signals are read, with their senders (signalfd(2)); None if it can't."""
    signalfd = getattr(_libc, "signalfd", None)
    if signalfd is None:
        return None
    bits = sum(1 << (number - 1) for number in numbers)
    # A kernel signal set is a bit mask; the C library's is longer, and empty beyond the first 64.
    mask = (ctypes.c_uint64 * 16)(bits)
    descriptor: int = signalfd(-1, ctypes.byref(mask), _SFD_FLAGS)
    return descriptor if descriptor >= 0 else None
