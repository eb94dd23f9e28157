"""A program whose realtime clock is off by what a file says: stepped.py CLOCK FAULT TOOL WORDS...

So the clock of one host among several can be stepped while it runs, which no namespace does. FAULT is one of
planted.py, or empty.
"""

from __future__ import annotations

import contextlib
import sys
import time


def step_by(clock: str) -> None:
    """Let time.time() and time.time_ns() go by what the file says at each call."""
    real, real_ns = time.time, time.time_ns

    def off() -> float:
        with contextlib.suppress(OSError, ValueError), open(clock) as file:
            return float(file.read())
        return 0.0

    time.time = lambda: real() + off()
    time.time_ns = lambda: real_ns() + int(off() * 1e9)


if __name__ == "__main__":
    from .planted import main

    step_by(sys.argv[1])
    main(sys.argv[2:])
