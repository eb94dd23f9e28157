"""The lock server: sockets joined to the lock service.

A request goes one way: the bytes that a connection takes in (connection.py) become lines, requests and calls of the
lock table (request_handler.py); what a call has changed is kept and told to the others whom it concerns (service.py);
and each answer goes out when all that it shows is on disk (connection.py, group_commit.py). This module accepts the
connections, and joins the service to the loop's time and to the look-out for dead holders.

Nearly all clients come with one request, get one answer and are gone: they are served as soon as they are accepted,
and the loop never hears of them. A client that stays (because it waits, or keeps its connection) becomes a
ClientConnection.

What is bounded: a line (65,536 bytes), the names in a request (256), the requests that a client sends behind one
that waits (65,536 bytes), the answers made for a client that reads none (64, after which it is not read from),
the seconds that it may go on so (60), and the connections (as many as there are descriptors: when none is left, new
clients wait in the kernel's queue until one is given back).
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import time
from functools import partial
from math import inf

from ...daemon.loop_server import LoopServer
from ...daemon.state_dir import make_state_folder
from ...errors import StateError
from ...net.address import Address, service_port
from ...net.loop import READ, Loop
from ...net.tcp_listener import UnixListener, accept, adopt_listeners, tcp_listeners
from ...net.transport import DONTWAIT, PIECE
from ..endpoint import endpoint
from ..model import Grant, HolderProcess, LockRequest
from ..storage.base import Store
from ..storage.open_store import open_store
from .connection import ClientConnection, Newcomer, warn_classic
from .effects import BeforeImages
from .group_commit import RETRY, GroupCommit
from .holder_monitor import HolderMonitor
from .request_handler import RequestHandler
from .service import LockService

DEFAULT_PID_PORT = 1752
_ACCEPT_AT_ONCE = 64  # new connections served in one turn, so that those that stay have theirs
_ACCEPT_AGAIN = 1.0  # seconds until the next try when no descriptor was left
_FOLLOW_AFTER = 0.05  # seconds: most locks of a command that ends at once are given back before
_COMPLAIN_EVERY = 60.0  # seconds from one log line about the same trouble to the next
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

log = logging.getLogger(__name__)


class LockServer(LoopServer):
    """A lock server (IPC::Locker::Server): `LockServer(port=1234).start_server()`.

    `host` is one host or several to listen on; for `port`, `family` and `path` see `endpoint`. Held locks are kept
    in the file (or store) `state`, or in a file of the folder `state_dir` that is named after where the server
    listens; without both they live in memory. If there are `sockets`, which listen already, it is they that it
    serves on, and closes in the end. Raises UsageError or ServerUnavailable when it can't listen there, StateError
    when it can't use the file.
    """

    def __init__(
        self,
        host: str | list[str] = "localhost",
        port: str | int | None = None,
        family: str = "INET",
        path: str | None = None,
        state: str | Store | None = None,
        state_dir: str | None = None,
        sockets: list[socket.socket] | None = None,
    ) -> None:
        where = endpoint(port, family, path)
        self._unix_listener = UnixListener(where.path) if where.path is not None and not sockets else None
        if sockets:
            self._listeners = adopt_listeners(sockets)
        elif self._unix_listener is not None:
            self._listeners = [self._unix_listener.socket]
        else:
            self._listeners = tcp_listeners([host] if isinstance(host, str) else host, where.port)
        super().__init__(Loop(self._tick))
        self._holder_monitor = HolderMonitor(
            self._loop, service_port("pidstatd", "udp", DEFAULT_PID_PORT), self._process_gone
        )
        self._changed: dict[int, object] = {}  # tokens of grants that have changed, and that is not followed yet
        self._follow_at = inf  # when they are
        self._followed: dict[int, HolderProcess] = {}  # by token, the process that a grant depends on
        self._service = LockService(
            self._changed.update, self._on_suspect, self._on_overdue, last_token=time.time_ns() // 1000
        )
        self._service.started = time.time()
        self._clients: set[ClientConnection] = set()
        self._newcomer = Newcomer()
        self._state_location: str | None = None
        self._group_commit: GroupCommit | None = None
        try:
            self._open_state(state, state_dir)
        except BaseException:
            self.close()
            raise
        self._accepting = True
        self._next_complaint = 0.0
        for listener in self._listeners:
            self._watch_listener(listener)

    @property
    def addresses(self) -> list[str]:
        """Addresses that it listens on, as `host:port` or as the name of the UNIX socket."""
        return [str(Address(s.family, s.getsockname())) for s in self._listeners]

    def describe(self) -> str:
        """One line for the log."""
        where = f"listening on {', '.join(self.addresses)}"
        if self._state_location is None:
            return f"{where}; locks live in memory, a restart forgets them"
        return f"{where}; locks are kept in {self._state_location}"

    def close(self) -> None:
        """Give back the sockets and the name of the UNIX socket; the clients are cut off."""
        for client in list(self._clients):
            client.end(b"server_ended")
        for listener in self._listeners:
            listener.close()
        if self._unix_listener is not None:
            self._unix_listener.close()
        if self._group_commit is not None:
            self._group_commit.close()
        self._holder_monitor.close()
        super().close()

    # What outlives the server

    def _open_state(self, state: str | Store | None, folder: str | None) -> None:
        if folder is not None:
            state = state or os.path.join(make_state_folder(folder), self._state_name())
        if state is None:
            return
        store = open_store(state) if isinstance(state, str) else state
        self._state_location = store.location
        table = self._service.table
        try:
            now = time.monotonic()
            kept = store.load()
            if len({grant.name for grant in kept.grants}) < len(kept.grants):
                raise StateError(
                    f"the state in {store.location} is damaged, since a lock is held twice in it: move it away, or "
                    "bring back a copy of it"
                )
            table.restore(kept.grants, now, time.time() - now)
        except BaseException:
            store.close()
            raise
        # The counter goes on where it was; a file that was lost, or an old copy, must not give a number twice.
        table.last_token = max(table.last_token, kept.last_token)
        self._changed.update(dict.fromkeys(table.grants))
        self._group_commit = GroupCommit(
            store, table, self._loop, self._on_rolled_back, self._holder_monitor.report_again
        )
        self._service.is_durable = self._group_commit.is_durable
        self._service.record = self._record

    def _state_name(self) -> str:
        """A file name that tells the servers of one host apart."""
        from urllib.parse import quote

        first = self._listeners[0]
        if first.family == socket.AF_UNIX:
            return f"lockerd-{quote(self.addresses[0].lstrip('/'), safe='')}.db"
        return f"lockerd-{first.getsockname()[1]}.db"

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
            self._serve_newcomer(sock, host)

    def _serve_newcomer(self, sock: socket.SocketType, host: str) -> None:
        """Serve a client as soon as it is accepted; it becomes a ClientConnection if that is not all.

        This way costs a third less than that of a connection, which has to be made and taken apart again. An answer
        that may have to wait for the disk goes through ClientConnection.flush, as all others do.
        """
        self._newcomer.sock = sock
        handler = RequestHandler(self._service, self._newcomer, host)
        try:
            data = sock.recv(PIECE, DONTWAIT)
            if not data:
                sock.close()
                return
            # The time is taken behind the read: a lease counts from when its renewal was sent, so not from before.
            handler.receive(data, time.monotonic())
            if handler.closing and (self._group_commit is None or not handler.reveals_uncommitted):
                answer = b"".join(handler.output)
                sent = sock.send(answer, DONTWAIT)
                if sent == len(answer):
                    sock.close()
                    if handler.subscriptions:
                        self._service.unsubscribe(handler)
                    return
                handler.output = [answer[sent:]]
        except BlockingIOError:
            pass  # it has said nothing yet, or takes nothing yet
        except OSError:
            handler.on_disconnect(self._loop.now)
            sock.close()
            return
        except Exception:
            log.exception("a request could not be served")  # a fault of ours costs one client its connection
            warn_classic(sock, handler, b"internal")
            handler.on_disconnect(self._loop.now)
            sock.close()
            return
        client = ClientConnection(self._loop, sock, handler, self._group_commit, self._on_client_closed)
        self._clients.add(client)
        client.flush()

    def _on_client_closed(self, client: ClientConnection) -> None:
        """With the descriptor of a client that was closed, another one may be let in."""
        self._clients.discard(client)
        self._accept_again()

    def _pause_accepting(self, problem: OSError) -> None:
        """Leave new connections in the kernel's queue until a descriptor is free again."""
        if not self._accepting:
            return
        if self._loop.now >= self._next_complaint:
            self._next_complaint = self._loop.now + _COMPLAIN_EVERY
            log.warning("%s: new clients wait until one of %d goes", problem.strerror, len(self._clients))
        self._accepting = False
        for listener in self._listeners:
            self._loop.unwatch(listener)
        self._loop.call_at(self._loop.now + _ACCEPT_AGAIN, self._accept_again)

    def _accept_again(self) -> None:
        if not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                self._watch_listener(listener)

    # Changes

    def _record(self, images: BeforeImages) -> None:
        assert self._group_commit is not None
        self._changed.update(images)
        self._group_commit.record(images)

    def _on_rolled_back(self, images: BeforeImages, stranded: list[LockRequest]) -> None:
        self._changed.update(images)
        self._service.fail_waiters(stranded)

    def _tick(self, now: float) -> float:
        table = self._service.table
        group_commit = self._group_commit
        if group_commit is not None and group_commit.failing:
            next_expiry = inf  # nothing ends while its end can't be kept
        else:
            if table.next_expiry <= now:
                self._expire(now)
            next_expiry = table.next_expiry
        if group_commit is not None and group_commit.flush(now):
            next_expiry = now
        if self._changed and self._follow_at == inf:
            self._follow_at = now + _FOLLOW_AFTER
        elif self._follow_at <= now:
            self._follow_changes()
        return min(next_expiry, self._holder_monitor.tick(now), self._follow_at)

    # Holds that end, and holders that are gone

    def _expire(self, now: float) -> None:
        for grant in self._service.expire(now).ended:
            log.info("lock %s was taken from %s: its time was up", *map(os.fsdecode, (grant.name, grant.user)))

    def _on_overdue(self, grant: Grant) -> None:
        """Look whether the process of a lease that has run out lives."""
        assert grant.process is not None
        self._follow_changes()  # who is looked at has to be known
        self._holder_monitor.check_now(grant.process, partial(self._on_checked, grant))

    def _on_checked(self, grant: Grant, lives: bool | None) -> None:
        if self._group_commit is not None and self._group_commit.failing:
            self._loop.call_at(self._loop.now + RETRY, lambda: self._on_checked(grant, lives))
            return
        name, user = os.fsdecode(grant.name), os.fsdecode(grant.user)
        if lives:
            self._service.apply(self._service.table.mark_holder_alive(grant))
            log.warning("the lease of lock %s has run out, but the process of %s lives: it stays held", name, user)
        elif self._service.expire_overdue(grant, self._loop.now).ended:
            log.warning("lock %s was taken from %s: its lease has run out", name, user)

    def _on_suspect(self, process: HolderProcess) -> None:
        self._follow_changes()
        self._holder_monitor.check_soon(process)

    def _follow_changes(self) -> None:
        """Watch the processes that locks have come to depend on, and no more those that none depends on.

        Not at once: many locks are given back before, and all others have their answers first.
        """
        self._follow_at = inf
        grants = self._service.table.grants
        changed = list(self._changed)
        self._changed.clear()
        no_more = []
        for token in changed:
            before = self._followed.get(token)
            grant = grants.get(token)
            after = None if grant is None else grant.process
            if before == after:
                continue
            if before is not None:
                del self._followed[token]
                no_more.append(before)
            if after is not None:
                self._followed[token] = after
                self._holder_monitor.watch(after)
        for process in no_more:  # last, since one that has another lock by now is watched on
            self._holder_monitor.unwatch(process)

    def _process_gone(self, process: HolderProcess) -> None:
        if self._group_commit is not None and self._group_commit.failing:
            self._loop.call_at(self._loop.now + RETRY, lambda: self._process_gone(process))
            return
        for grant in self._service.release_of(process, self._loop.now).ended:
            name, host = os.fsdecode(grant.name), os.fsdecode(process.host)
            log.info("lock %s is free: process %d on %s, which held it, is gone", name, process.pid, host)
