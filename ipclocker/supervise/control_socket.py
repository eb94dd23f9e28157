"""Control of a supervisor: questions and commands over a UNIX socket that only its own user may use.

Requests and answers are JSON, one on a line: {"command": "stop", "programs": ["web"]}, where no program means all, is
answered by {"supervisor": {...}, "programs": [{...}, ...]} or {"error": "...", "code": 64}. What takes its time is
answered when it is done; until then an empty line each second tells that it is worth waiting.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Callable, Optional, Protocol

from ..errors import USAGE, IpclockerError, ServerUnavailable, UsageError
from ..net.line_buffer import MAX_LINE, LineTooLong, split_lines
from ..net.loop import READ, WRITE, Loop
from ..net.transport import PIECE, Transport
from ..net.unix_socket import UnixSocket

COMMANDS = ("status", "start", "stop", "restart")
_MOST = 100  # clients at a time, far below any limit on descriptors; others wait to be accepted
_PULSE = 1.0  # seconds between two signs of life, so that ten may be lost within _PATIENCE
_PATIENCE = 10.0  # seconds without a sign of life from the supervisor
_IDLE = 10.0  # seconds in which a client asks nothing, or reads nothing of its answer


def control_path(pid_file: Optional[str]) -> Optional[str]:
    """The name of the socket beside a pid file; without one, where this user's supervisor has it.

    None if there is no such place: for another user than root, without a folder for what runs.
    """
    if pid_file is not None:
        path = os.path.abspath(pid_file)
        return f"{path[:-4] if path.endswith('.pid') else path}.sock"
    folder = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR")
    return f"{folder}/ipclocker-supervise.sock" if folder else None


class Controlled(Protocol):
    """Supervisor as its control socket knows it."""

    def describe_to(self, names: list[str]) -> dict[str, Any]:
        """The state of these programs, or of all. Raises UsageError if there is one that is not known."""

    def tell(self, command: str, names: list[str]) -> list[str]:
        """Start, stop or restart these programs, or all; their names. Raises UsageError."""

    def are_settled(self, names: list[str]) -> bool:
        """Tell whether the commands about these programs are done."""


class _Listener(UnixSocket):
    kind = socket.SOCK_STREAM
    option = "--pid-file"

    def _give_access(self) -> None:
        """To its own user only."""
        os.chmod(self.path, 0o600)


class ControlServer:
    """Listens on a socket and speaks with those who connect."""

    def __init__(self, loop: Loop, path: str, controlled: Controlled) -> None:
        """Raises UsageError if the socket can't be had."""
        self.path = path
        self._loop = loop
        self._controlled = controlled
        self._listener = _Listener(path)
        self._clients: set[_Client] = set()
        self._listening = False
        self._listen()

    def changed(self) -> None:
        """Something has changed: answers may be due."""
        for client in list(self._clients):
            client.answer_if_settled()

    def close(self) -> None:
        """Hang up, and give the socket back."""
        for client in list(self._clients):
            client.close()
        if self._listening:
            self._loop.unwatch(self._listener.socket)
            self._listening = False
        self._listener.close()

    def _listen(self) -> None:
        self._loop.watch(self._listener.socket, READ, self._accept)
        self._listening = True

    def _accept(self, events: int) -> None:
        try:
            sock, _ = self._listener.socket.accept()
        except OSError:
            return
        sock.setblocking(False)
        self._clients.add(_Client(self._loop, sock, self._controlled, self._gone))
        if len(self._clients) >= _MOST:
            self._loop.unwatch(self._listener.socket)
            self._listening = False

    def _gone(self, client: _Client) -> None:
        self._clients.discard(client)
        if not self._listening:
            self._listen()


class _Client(Transport):
    """One connection: a request at a time, and its answer. One that does not read its answers is not read from."""

    patience = _IDLE

    def __init__(
        self, loop: Loop, sock: socket.socket, controlled: Controlled, gone: Callable[[_Client], None]
    ) -> None:
        super().__init__(loop, sock)
        self._controlled = controlled
        self._gone = gone
        self._rest = b""
        self._waits_for: list[str] | None = None  # programs of which something is to be done
        self._active_at = loop.now  # when it has last asked or read something
        self._pulse = loop.call_at(loop.now + _PULSE, self._beat)
        self.wait_for(READ)

    def answer_if_settled(self) -> None:
        """Answer, if what was asked for is done."""
        if self._waits_for is not None and self._controlled.are_settled(self._waits_for):
            names, self._waits_for = self._waits_for, None
            self._describe(names)

    # As a transport

    def on_data(self, data: bytes) -> None:
        if self._waits_for is not None:  # it speaks while it has to wait
            self.close()
            return
        self._active_at = self._loop.now
        try:
            lines, self._rest = split_lines(self._rest, data)
        except LineTooLong:
            self.close()
            return
        if lines:
            self._take(lines[0])
            if lines[1:]:
                self._rest = b""  # a request at a time is what was agreed on

    def on_writable(self) -> None:
        self._write(b"")

    def on_close(self) -> None:
        self._pulse.cancel()
        self._gone(self)

    # Inside

    def _take(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            command, names = str(request["command"]), [str(name) for name in request.get("programs", [])]
            if command == "status":
                self._describe(names)
            elif command in COMMANDS:
                self._waits_for = self._controlled.tell(command, names)
                self.answer_if_settled()
            else:
                raise UsageError(f"there is no command '{command}': there are {', '.join(COMMANDS)}")
        except IpclockerError as error:
            self._answer({"error": str(error), "code": error.exit_code})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._answer({"error": "this is no request", "code": USAGE})

    def _describe(self, names: list[str]) -> None:
        try:
            answer = self._controlled.describe_to(names)
        except IpclockerError as error:
            answer = {"error": str(error), "code": error.exit_code}
        self._answer(answer)

    def _answer(self, answer: dict[str, Any]) -> None:
        self._write(json.dumps(answer).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            self.wait_for(READ if self.send(data) else WRITE)
            self._active_at = self._loop.now
        except OSError:
            self.close()

    def _beat(self) -> None:
        if self._waits_for is not None and not self._unsent:
            self._write(b"\n")
        elif self._waits_for is None and not self._unsent and self._loop.now - self._active_at > _IDLE:
            self.close()
        if self.is_open:
            self._pulse = self._loop.call_at(self._loop.now + _PULSE, self._beat)


def ask(path: str, command: str, names: list[str]) -> dict[str, Any]:
    """Ask the supervisor with this socket; its answer, when what was asked for is done.

    Raises ServerUnavailable if none answers, UsageError if it refuses.
    """
    request = json.dumps({"command": command, "programs": names}).encode() + b"\n"
    if len(request) > MAX_LINE:
        raise UsageError("these are too many programs for one request: name none for all")
    heard = b""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(path)
            sock.sendall(request)
            while not heard.strip() or not heard.endswith(b"\n"):
                data = sock.recv(PIECE)
                if not data:
                    raise ServerUnavailable(f"the supervisor at {path} has hung up: see its log")
                heard = (heard + data).lstrip(b"\n")
    except ServerUnavailable:
        raise
    except socket.timeout:
        raise ServerUnavailable(f"the supervisor at {path} does not answer within {_PATIENCE:g} s") from None
    except (OSError, UnicodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ServerUnavailable(
            f"no supervisor answers at {path} ({why}): start one, or name the --pid-file of the one that runs"
        ) from None
    try:
        answer: dict[str, Any] = json.loads(heard)
    except ValueError:
        raise ServerUnavailable(f"what answers at {path} is no supervisor") from None
    if "error" in answer:
        raise UsageError(answer["error"])
    return answer
