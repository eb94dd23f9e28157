"""The lock server: sockets joined to the lock service.

Nearly all clients come with one request, get one answer and are gone, so that is the short way through: accept,
read, run, answer, close, and the loop never hears of them. A client that stays (because it waits, or keeps its
connection) becomes a _Client, which the loop watches.

What is bounded: a line (65,536 bytes), the names in a request (256), the requests that a client sends behind one
that waits (65,536 bytes), the answers made for a client that reads none (64, after which it is not read from),
the seconds it may go on so (60), and the connections (as many as there are descriptors: when none is left, new
clients wait in the kernel's queue until one is given back).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import sys
import termios
import time
from math import inf

from ..daemon.address import Address, service_port
from ..daemon.listen import UnixListener, accept, tcp_listeners
from ..daemon.loop import READ, WRITE, Loop, Timer
from ..daemon.serving import LoopServer
from .endpoint import endpoint
from .lookout import Lookout
from .protocol import error
from .service import Conversation, LockService
from .table import Process

DEFAULT_PID_PORT = 1752
READ_PATIENCE = 60.0  # seconds that a client may leave its answers unread
_PIECE = 65_536  # bytes read at a time
_ACCEPT_AT_ONCE = 64  # new connections served in one turn, so that those that stay have theirs
_ACCEPT_AGAIN = 1.0  # seconds until the next try when no descriptor was left
_FOLLOW_AFTER = 0.05  # seconds
_COMPLAIN_EVERY = 60.0  # seconds
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_DONTWAIT = int(socket.MSG_DONTWAIT)
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

log = logging.getLogger(__name__)


class LockServer(LoopServer):
    """A lock server (IPC::Locker::Server): `LockServer(port=1234).start_server()`.

    `host` is one host or several to listen on; for the rest see `endpoint`. Raises UsageError or
    ServerUnavailable when it can't listen there.
    """

    def __init__(
        self,
        host: str | list[str] = "localhost",
        port: str | int | None = None,
        family: str = "INET",
        path: str | None = None,
    ) -> None:
        where = endpoint(port, family, path)
        self._unix_listener = UnixListener(where.path) if where.path is not None else None
        if self._unix_listener is not None:
            self._listeners = [self._unix_listener.socket]
        else:
            self._listeners = tcp_listeners([host] if isinstance(host, str) else host, where.port)
        super().__init__(Loop(self._tick))
        self._lookout = Lookout(self._loop, service_port("pidstatd", "udp", DEFAULT_PID_PORT), self._process_gone)
        self._follow_at = inf  # when what has changed since is looked at
        self._followed: dict[int, Process] = {}  # by token, the processes that locks depend on
        self._service = LockService(self._speak, self._is_connected, self._doubt, last_token=time.time_ns() // 1000)
        self._clients: dict[Conversation, _Client] = {}
        self._newcomer: tuple[Conversation, socket.SocketType] | None = (
            None  # who is served for the first time just now
        )
        self._accepting = True
        self._next_complaint = 0.0
        for listener in self._listeners:
            self._watch_listener(listener)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as `host:port` or as the name of the UNIX socket."""
        return [str(Address(s.family, s.getsockname())) for s in self._listeners]

    def describe(self) -> str:
        """One line for the log."""
        return f"listening on {', '.join(self.addresses)}; locks live in memory, a restart forgets them"

    def close(self) -> None:
        """Give back the sockets and the name of the UNIX socket; the clients are cut off."""
        for client in list(self._clients.values()):
            client.close()
        for listener in self._listeners:
            listener.close()
        if self._unix_listener is not None:
            self._unix_listener.close()
        self._lookout.close()
        super().close()

    # New clients

    def _watch_listener(self, listener: socket.socket) -> None:
        family = int(listener.family)
        self._loop.watch(listener, READ, lambda events: self._accept(listener, family))

    def _accept(self, listener: socket.socket, family: int) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                sock, host = accept(listener, family)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in _NO_DESCRIPTOR:
                    self._pause_accepting(problem)
                    return
                continue  # that connection is gone again; the next one may be well
            self._welcome(sock, host)

    def _welcome(self, sock: socket.SocketType, address: str) -> None:
        conversation = Conversation(self._service, address)
        self._newcomer = (conversation, sock)
        try:
            data = sock.recv(_PIECE, _DONTWAIT)
            if not data:
                sock.close()
                return
            conversation.receive(data, self._loop.now)
            if conversation.closing:
                answer = b"".join(conversation.output)
                sent = sock.send(answer, _DONTWAIT)
                if sent == len(answer):
                    sock.close()
                    return
                conversation.output = [answer[sent:]]
        except BlockingIOError:
            pass  # it has said nothing yet
        except OSError:
            conversation.hang_up(self._loop.now)
            sock.close()
            return
        except Exception:
            # A fault of ours must cost one client its connection, and nobody a lock.
            log.exception("a request could not be served")
            conversation.hang_up(self._loop.now)
            sock.close()
            return
        client = _Client(self, self._loop, sock, conversation)
        self._clients[conversation] = client
        client.speak()

    def _pause_accepting(self, problem: OSError) -> None:
        """Leave new connections in the kernel's queue until a descriptor is free again."""
        if not self._accepting:
            return
        if self._loop.now >= self._next_complaint:
            self._next_complaint = self._loop.now + _COMPLAIN_EVERY
            log.warning("%s: new clients wait until one of %d goes", problem.strerror, len(self._clients))
        self._accepting = False
        for listener in self._listeners:
            self._loop.forget(listener)
        self._loop.call_at(self._loop.now + _ACCEPT_AGAIN, self._accept_again)

    def _accept_again(self) -> None:
        if not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                self._watch_listener(listener)

    # What the service and the clients ask for

    def _tick(self, now: float) -> float:
        table = self._service.table
        if table.next_alarm <= now:
            for grant in self._service.expire(now):
                log.info("lock %s was taken from %s: its time was up", *map(os.fsdecode, (grant.name, grant.user)))
        if table.changes and self._follow_at == inf:
            self._follow_at = now + _FOLLOW_AFTER
        elif self._follow_at <= now:
            self._follow_changes()
        return min(table.next_alarm, self._lookout.tick(now), self._follow_at)

    def _doubt(self, process: Process) -> None:
        self._follow_changes()
        self._lookout.hurry(process)

    def _follow_changes(self) -> None:
        """Look out for the processes that locks have come to depend on, and no more for those that they don't.

        Not at once: many locks are given back before, and all others have their answers first.
        """
        self._follow_at = inf
        changes, self._service.table.changes = self._service.table.changes, []
        for grant in changes:
            before = self._followed.get(grant.token)
            if before is None and grant.process is None:
                continue
            after = grant.process if self._service.table.current(grant.name, grant.token) is not None else None
            if before == after:
                continue
            if after is not None:
                self._followed[grant.token] = after
                self._lookout.follow(after)
            if before is not None:
                if after is None:
                    del self._followed[grant.token]
                self._lookout.leave(before)

    def _process_gone(self, process: Process) -> None:
        for grant in self._service.process_gone(process, self._loop.now):
            name, host = os.fsdecode(grant.name), os.fsdecode(process.host)
            log.info("lock %s is free: process %d on %s, which held it, is gone", name, process.pid, host)

    def _speak(self, conversation: Conversation) -> None:
        client = self._clients.get(conversation)
        if client is not None:
            client.speak()

    def _is_connected(self, conversation: Conversation) -> bool:
        """Whether a waiting client is still there, as far as the kernel knows at this instant."""
        client = self._clients.get(conversation)
        if client is not None:
            sock = client.sock
        elif self._newcomer is not None and self._newcomer[0] is conversation:
            sock = self._newcomer[1]
        else:
            return False
        poller = select.poll()
        poller.register(sock, getattr(select, "POLLRDHUP", 0))
        return not any(events & _GONE for _, events in poller.poll(0))

    def forget_client(self, client: _Client) -> None:
        """A client was closed; with its descriptor, another one may be let in."""
        del self._clients[client.conversation]
        self._accept_again()


class _Client:
    """A client that stays: its socket, its conversation, and what it has not yet read of its answers."""

    __slots__ = ("_events", "_loop", "_patience", "_server", "_unread", "_unsent", "conversation", "sock")

    def __init__(self, server: LockServer, loop: Loop, sock: socket.SocketType, conversation: Conversation) -> None:
        self.sock = sock
        self.conversation = conversation
        self._server = server
        self._loop = loop
        self._unsent = b""
        self._unread = 0  # bytes that the kernel had for the client when its patience was last looked at
        self._patience: Timer | None = None
        self._events = READ
        loop.watch(sock, READ, self._ready)

    def speak(self) -> None:
        """Send what the conversation has for the client, and let it go on as long as the client reads."""
        conversation = self.conversation
        try:
            while True:
                output = conversation.output
                if output:
                    self._unsent += output[0] if len(output) == 1 else b"".join(output)
                    output.clear()
                if self._unsent and not self._send():
                    break
                conversation.undelivered = None
                if not conversation.stopped or conversation.waiting or conversation.closing:
                    break
                conversation.resume(self._loop.now)
        except OSError:
            self.close()
            return
        if self._unsent:
            self._await(WRITE | READ if conversation.waiting else WRITE)
        elif conversation.closing:
            self.close()
        elif self._events != READ:
            self._await(READ)

    def close(self) -> None:
        """Cut the client off: it is gone, or there is nothing left to say."""
        if self.sock.fileno() < 0:
            return  # it was cut off while others were told of something
        if self._patience is not None:
            self._patience.cancel()
        self._loop.forget(self.sock)
        self.sock.close()
        self._server.forget_client(self)
        self.conversation.hang_up(self._loop.now)

    def _ready(self, events: int) -> None:
        try:
            if events & READ:
                data = self.sock.recv(_PIECE, _DONTWAIT)
                if not data:
                    self.close()
                    return
                self.conversation.receive(data, self._loop.now)
            self.speak()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
        except Exception:  # as above
            log.exception("a request could not be served")
            self.close()

    def _send(self) -> bool:
        """Send what is unsent; whether all of it went. Raises OSError if the client is gone."""
        try:
            sent = self.sock.send(self._unsent, _DONTWAIT)
        except BlockingIOError:
            sent = 0
        done = sent == len(self._unsent)
        self._unsent = b"" if done else self._unsent[sent:]
        if sent and self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not done and self._patience is None:
            self._unread = _unread(self.sock)
            self._patience = self._loop.call_at(self._loop.now + READ_PATIENCE, self._lose_patience)
        return done

    def _await(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.change(self.sock, events, self._ready)

    def _lose_patience(self) -> None:
        if _unread(self.sock) < self._unread:
            self._unread = _unread(self.sock)
            self._patience = self._loop.call_at(self._loop.now + READ_PATIENCE, self._lose_patience)
            return
        log.warning("a client has left its answers unread for %.0f s and is cut off", READ_PATIENCE)
        with contextlib.suppress(OSError):
            self.sock.send(error(b"answers_unread"), _DONTWAIT)
        self.close()


def _unread(sock: socket.SocketType) -> int:
    """Bytes that were sent and that the client's host has not taken yet; they become fewer while it reads slowly."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
