"""Writing a server's log: to stderr in the foreground, to syslog in the background, or to a file.

A record is always one line: unprintable characters are escaped, since much of the text comes from the network, and a
very long line is cut. It is written with one system call and kept nowhere, so that a destination that fails (a full
disk, a syslog that is restarted) costs the records of that time and nothing else: no exception reaches the server,
no memory fills up, and the next record tries again.

The handlers of the standard library are not used: those for files and streams keep in a buffer what could
not be written, and the one for syslog blocks the server while syslog is stuck.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from ..errors import UsageError
from .same_file import is_at

SYSLOG = "/dev/log"
MAX_RECORD = 8192  # characters; also the most that rsyslog takes as one message by default
_LOG_DAEMON = 3 << 3  # the facility, as syslog.h has it
_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_STDERR = 2
_TIME = "%Y-%m-%d %H:%M:%S"


def set_up(name: str, *, foreground: bool, log_file: str | None, debug: bool) -> None:
    """Send everything that is logged in this process to one place; `name` is the server's, as "lockerd".

    It may be called again; then the new place counts. Raises UsageError if the file cannot be written.
    """
    handler = _File(log_file) if log_file is not None else _Stderr() if foreground else _Syslog()
    handler.setFormatter(_OneLine(_format_for(handler, name), _TIME))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Destination)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.raiseExceptions = False


def one_line(text: str) -> str:
    """Escape all unprintable characters of a text, and cut it to MAX_RECORD characters."""
    if not text.isprintable():
        # Half a character, an order to the terminal or to write from right to left: unprintable, all of them.
        # (By `ascii`, since a codec would be loaded from a file, for which there may be no descriptor left.)
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= MAX_RECORD else text[: MAX_RECORD - 3] + "..."


def with_priority(level: int, line: str) -> str:
    """Prepare a line for stderr that is not logged: with the priority of a level, if the journal reads it."""
    return f"<{_severity(level)}>{line}" if is_journal(_STDERR) else line


def _format_for(handler: _Destination, name: str) -> str:
    who = name.replace("%", "%%") + "[%(process)d]"
    if isinstance(handler, _Syslog):
        return f"{who}: %(message)s"
    if isinstance(handler, _Stderr) and handler.is_journal:
        return "%(message)s"  # the journal knows when, who and which process
    return f"%(asctime)s.%(msecs)03d {who} %(levelname)s: %(message)s"


def _severity(level: int) -> int:
    """Return the severity of syslog.h for a level of `logging`."""
    return next((severity for least, severity in _SEVERITIES if level >= least), 7)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


class _Destination(logging.Handler):
    """A place for lines. If writing fails, the record is lost, and the server goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.send(_severity(record.levelno), self.format(record))
        except Exception:  # noqa: BLE001 - a server does not stop serving because its log fails
            self.handleError(record)

    def send(self, severity: int, line: str) -> None:
        """Write one line, which is given without its end. It may raise any exception."""
        raise NotImplementedError


class _Stderr(_Destination):
    """Stderr, by its descriptor: sys.stderr would keep what it could not write, and fail again at the exit."""

    def __init__(self) -> None:
        super().__init__()
        self.is_journal = is_journal(_STDERR)

    def send(self, severity: int, line: str) -> None:
        if self.is_journal:
            line = f"<{severity}>{line}"
        os.write(_STDERR, _encoded(line + "\n"))


def is_journal(descriptor: int) -> bool:
    """Return True if systemd's journal reads what is written there (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _File(_Destination):
    """A file; it is opened again when it was moved away or removed, as log rotation does."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path).absolute()  # a server in the background changes its folder
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise UsageError(
                f"the log file {path} cannot be written ({error.strerror}): name another with --log-file"
            ) from error

    def send(self, severity: int, line: str) -> None:
        if not is_at(self._descriptor, self._path):
            self._reopen()
        os.write(self._descriptor, _encoded(line + "\n"))

    def _reopen(self) -> None:
        try:
            descriptor = self._open()
        except OSError:
            return  # better in the file that was moved away than nowhere
        os.close(self._descriptor)
        self._descriptor = descriptor

    def _open(self) -> int:
        # O_NOCTTY: a log file may be a terminal, and must not become the server's.
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o644)

    def close(self) -> None:
        os.close(self._descriptor)
        super().close()


class _Syslog(_Destination):
    """The system's log. Connected at the first record, and again whenever the connection is lost."""

    def __init__(self) -> None:
        super().__init__()
        self._socket: socket.socket | None = None

    def send(self, severity: int, line: str) -> None:
        message = _encoded(f"<{_LOG_DAEMON | severity}>{line}")
        try:
            self._connected().send(message)
        except BlockingIOError:
            pass  # syslog is stuck; a server does not wait for its log
        except OSError:
            self._disconnect()
            self._connected().send(message)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            connection.setblocking(False)
            try:
                connection.connect(SYSLOG)
            except OSError:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        self._disconnect()
        super().close()


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")
