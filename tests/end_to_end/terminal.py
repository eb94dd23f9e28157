"""A pseudo-terminal with something on it, as a person would use it: type, and read what appears."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

from ..support.waiting import DEADLINE


class Terminal:
    """A new session, led by the command, on a terminal of its own."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.screen = ""  # what has appeared since the last `expect`
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.execvpe(words[0], words, environment)
            finally:
                os._exit(127)
        self._leader = self.pid

    def type(self, text: str) -> None:
        """Send the terminal what the keys send."""
        os.write(self._master, text.encode())

    def line(self, text: str) -> None:
        """Type a line."""
        self.type(f"{text}\n")

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until that appears; what was before it is seen."""
        deadline = time.monotonic() + DEADLINE
        while not (match := re.search(pattern, self.screen)):
            left = deadline - time.monotonic()
            assert left > 0 and self._read(left), f"waited in vain for {pattern!r}, there is: {self.screen!r}"
        self.screen = self.screen[match.end() :]
        return match

    def look(self) -> None:
        """See what has appeared by now."""
        self._read(0)

    def rest(self) -> str:
        """All that appears until the terminal is closed."""
        while self._read(DEADLINE):
            pass
        return self.screen

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """Close the terminal."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def end(self) -> int:
        """Wait for the leader's end: its exit code, or the signal's number as a negative one."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            if self._master >= 0:
                self._read(0.02)
            else:
                time.sleep(0.02)
        raise AssertionError(f"it does not end; there is: {self.screen!r}")

    def clean_up(self) -> None:
        """Hang up, and end the whole session."""
        self.hang_up()
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(ProcessLookupError):
                if pid != self._leader and os.getsid(pid) == self._leader:
                    os.kill(pid, signal.SIGKILL)
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _read(self, timeout: float) -> bool:
        """Read what has appeared, for at most so many seconds; true if there was anything."""
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._master, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        self.screen += data.decode(errors="replace")
        return bool(data)
