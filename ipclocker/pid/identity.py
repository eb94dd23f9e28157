"""What tells a process from every other: a number alone comes back, on the same host and on others.

A process is its host's boot, its pid namespace, its number there and the time it was started. Linux shows all of
these; where a system does not, the number is what is known.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Optional


class Identity(NamedTuple):
    """A process of this kernel: `start` in clock ticks since boot, `pidns` the number of its pid namespace."""

    pid: int
    start: Optional[int] = None
    boot: str = ""
    pidns: Optional[int] = None


def identify(pid: int) -> Identity:
    """The identity of a process that this one can see; only the number where the system tells no more."""
    try:
        if Path("/proc/self").readlink().name != str(os.getpid()):
            return Identity(pid)  # this /proc shows another pid namespace than ours
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        # The second field is the command in brackets, and may hold anything; the start time is the 22nd.
        start = int(stat[stat.rindex(b")") + 2 :].split()[19])
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return Identity(pid, start, boot, os.stat("/proc/self/ns/pid").st_ino)
    except (OSError, ValueError, IndexError):
        return Identity(pid)
