"""Changes the name under which ps(1), top(1) and pgrep(1) show this process."""

from __future__ import annotations

import contextlib

from ..net.text import encode_text
from .identity import stat_fields

_SHORT = 15  # bytes of the short name, which the kernel keeps
_ARGUMENTS_BEGIN, _ARGUMENTS_END = 45, 46  # fields 48 and 49 of proc(5)'s stat, counted from the third


def set_title(text: str) -> None:
    """Show this process under that name, cut to the length of its command line. Does nothing where that can't be."""
    name = encode_text(text).replace(b"\0", b" ")
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(name[:_SHORT])
    with contextlib.suppress(ImportError, OSError, IndexError, ValueError):
        import ctypes

        fields = stat_fields("self")
        begin, end = int(fields[_ARGUMENTS_BEGIN]), int(fields[_ARGUMENTS_END])
        if 0 < begin < end:
            # The command line as the kernel put it here: Python has a copy of its own, and others read it from here.
            ctypes.memset(begin, 0, end - begin)
            ctypes.memmove(begin, name, min(len(name), end - begin - 1))
