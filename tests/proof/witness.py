"""The command that runs under a lock, and sees by itself whether it is alone: witness.py FOLDER SECONDS MANNERS...

It holds a file lock of this host, which the kernel takes from it when it is gone, however it went. If another one
holds that at its start, two are at work under one lock. All of it is written to a log for each lock, in the order in
which it happened. What it was told by MANNERS:

    stubborn    SIGTERM does not end it
    tree        it has a child, and a grandchild that has left the session and has no parent: they hold the file
                lock as well

It imports little, so that a crowd of them costs little.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

CLASH = 3  # exit code


def main(folder: str, seconds: str, *manners: str) -> None:
    """Watch for so many seconds."""
    name, token = os.environ["IPCLOCKER_LOCK"], os.environ.get("IPCLOCKER_TOKEN", "0")
    if "stubborn" in manners:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log = os.open(f"{folder}/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(what: str) -> None:
        os.write(log, f"{what} {token} {os.getpid()} {os.uname().nodename} {time.monotonic():.6f}\n".encode())

    held = os.open(f"{folder}/{name}.held", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("clash")
        os._exit(CLASH)
    say("start")
    below = grow() if "tree" in manners else []
    time.sleep(float(seconds))
    say("end")
    if below:
        os.close(held)
        for pid in below:
            os.kill(pid, signal.SIGKILL)
        held = os.open(f"{folder}/{name}.held", os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)  # when they are gone
    os._exit(0)


def grow() -> list[int]:
    """Make a child and an orphan; their numbers."""
    child = os.fork()
    if child == 0:
        sleep_for_ever()
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        orphan = os.fork()
        if orphan == 0:
            os.setsid()
            sleep_for_ever()
        os.write(writing, str(orphan).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    return [child, int(os.read(reading, 20))]


def sleep_for_ever() -> None:
    """Until it is killed."""
    while True:
        time.sleep(1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
