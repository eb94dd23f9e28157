"""A command that shows for how long it really ran: it writes the time into a file of its own again and again.

    worker.py NAME [deaf] [daemons]

`deaf`: it ignores the signals that end a process by default. `daemons`: it starts two that have left its tree, one
with its output closed; they are named NAME.1 and NAME.2, and are as deaf as it is.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def become_daemon() -> bool:
    """In a process of its own session, whose parent has ended; False in the one that goes on."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    return True


def work(name: str) -> None:
    with open(name, "a") as file:
        while True:
            print(time.monotonic(), os.getpid(), flush=True, file=file)
            time.sleep(0.005)


def main() -> None:
    name, *how = sys.argv[1:]
    if "deaf" in how:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    if "daemons" in how:
        for daemon in (f"{name}.1", f"{name}.2"):
            if become_daemon():
                work(daemon)
    work(name)


main()
