"""A server to try daemonize and monitor with: a UNIX socket that answers a connection with its pid and closes it.

Run as `python -m tests.support.fake_service FOLDER [--option ...]`. In FOLDER are its socket ("socket"), its
pid file ("pid"), its log ("log"), the names of its environment's variables ("environment"), the pids of all
processes that were ever started as server or as its monitor ("pids"), and files by which a test tells it how to
behave at its next start, named after what is to happen:
  refuse   start raises a ServerUnavailable with the file's content
  refuse later  the same, but not in a trial
  refuse state  start raises a StateError with the file's content
  crash    start raises a RuntimeError
  kill     the process kills itself in start
  hang     start waits until the file is gone
  deaf     SIGTERM does nothing
  stuck    a connection is not answered, and nothing else done, until the file is gone
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from pathlib import Path

from ipclocker.daemon import daemonize, monitor
from ipclocker.daemon.inheritance import Inheritance
from ipclocker.daemon.loop_server import LoopServer
from ipclocker.errors import ServerUnavailable, StateError
from ipclocker.net.loop import READ, Loop

from . import PROJECT


class FakeService(LoopServer):
    def __init__(self, folder: Path, inherited: Inheritance) -> None:
        self._folder = folder
        with (folder / "pids").open("a") as pids:
            pids.write(f"{os.getpid()}\n{os.getppid()}\n")
        (folder / "environment").write_text(" ".join(os.environ))
        super().__init__(Loop())
        self._is_trial = inherited.sockets != () and not inherited.sockets[0].getsockname()
        _misbehave(folder, self._is_trial)
        if inherited.sockets:
            (self._socket,) = inherited.sockets
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            (folder / "socket").unlink(missing_ok=True)
            self._socket.bind(str(folder / "socket"))
            self._socket.listen()
        self._loop.watch(self._socket, READ, self._answer)

    def describe(self) -> str:
        return "listening on a socket"

    def hand_over(self) -> Inheritance:
        place = (self._folder / "socket").stat()
        handed = Inheritance((self._socket,), (place.st_dev, place.st_ino))
        super().close()
        return handed

    def close(self) -> None:
        if not self._is_trial:
            (self._folder / "socket").unlink()
        self._socket.close()
        super().close()

    def _answer(self, events: int) -> None:
        connection, _ = self._socket.accept()
        if (self._folder / "stuck").exists():
            (self._folder / "is stuck").touch()
        while (self._folder / "stuck").exists():
            time.sleep(0.01)
        with connection:
            connection.sendall(b"%d" % os.getpid())

    def stop(self) -> None:
        if not (self._folder / "deaf").exists():
            super().stop()


def _misbehave(folder: Path, is_trial: bool) -> None:
    if (folder / "refuse").exists():
        raise ServerUnavailable((folder / "refuse").read_text())
    if (folder / "refuse later").exists() and not is_trial:
        raise ServerUnavailable((folder / "refuse later").read_text())
    if (folder / "refuse state").exists():
        raise StateError((folder / "refuse state").read_text())
    if (folder / "crash").exists():
        raise RuntimeError("crash\nof the start")
    if (folder / "kill").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    while (folder / "hang").exists():
        time.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--pid-file", default="pid")
    parser.add_argument("--log-file")
    parser.add_argument("--end-within", type=float, default=monitor.END_WITHIN)
    options = parser.parse_args()
    monitor.END_WITHIN = options.end_within
    folder = options.folder.absolute()
    os.environ["PYTHONPATH"] = str(PROJECT)  # for its next start, which is in another folder
    os.chdir(folder)  # so that the names of files are relative ones
    return daemonize.run(
        lambda inherited: FakeService(folder, inherited),
        "fake",
        daemonize.DaemonOptions(options.foreground, options.pid_file, options.log_file),
    )


if __name__ == "__main__":
    sys.exit(main())
