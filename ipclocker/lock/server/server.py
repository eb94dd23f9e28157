"""The lock server: sockets joined to the lock service.

A request goes one way: the bytes that a connection takes in (connection.py) become lines (request_pipeline.py), which
become calls of the lock table (request_handler.py); what a call has changed is kept and told to the others whom it
concerns (service.py); and each answer goes out when all that it shows is on disk (connection.py, group_commit.py).
serving_term.py serves those that the acceptor lets in, and joins the service to the loop's time and to the monitor of
dead holders. This module has the sockets, and what outlives the server.

What is bounded: a line (65,536 bytes), the names in a request (256), the requests that a client sends behind one
that waits (65,536 bytes), the answers made for a client that reads none (64, after which it is not read from),
the seconds that it may go on so (60), those for which a connection may be idle (60), and the connections (as many as
there are descriptors: when none is left, new clients wait in the kernel's queue until one is given back).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Callable, Optional, Union

from ...daemon.inheritance import Inheritance
from ...daemon.listening_server import ListeningServer
from ...daemon.state_dir import make_state_folder
from ...errors import UsageError
from ...net.loop import Loop
from ...net.tcp_listener import (
    UnixListener,
    adopt_listeners,
    bound_sockets,
    start_listening,
    stop_listening,
    tcp_listeners,
)
from ...parameters import HOSTS, UNCHANGED, check_seconds, check_text, check_whole, given, socket_list, text_list, wrong
from ..endpoint import endpoint
from ..storage.base import Store, StoredState, new_space
from ..storage.etcd_settings import EtcdSettings
from ..storage.open_store import open_store
from ..wire import replies
from .serving_term import ServingTerm

if TYPE_CHECKING:
    from .replica import Replica

IDLE_TIMEOUT = 60.0  # seconds
TTL, SHORTEST_TTL, LONGEST_TTL = 5, 2, 3600  # seconds that a leader's term outlives its last renewal
_TELL_EVERY = 5.0  # seconds


class LockServer(ListeningServer):
    """A lock server (IPC::Locker::Server): `LockServer(port=1234).start_server()`.

    `host` is one host or several to listen on; for `port`, `family` and `path` see `endpoint`. Held locks are kept
    in the file (or store) `state`, or in a file of the folder `state_dir` that is named after where the server
    listens; without both they live in memory. If there are `sockets`, which listen already, it is they that it
    serves on, and closes in the end. A connection that holds and waits for nothing and is silent for `idle_timeout`
    seconds is closed (0: it never is). What it has from an earlier server counts more than all of these
    (`inherited`). Raises UsageError or ServerUnavailable when it can't listen there, StateError when it can't use
    the file.

    With `etcd` locks are kept there, and it is one of several servers of one lock space: it leads or stands by
    (replica.py), and another one leads `leader_ttl` seconds after it was last heard of. `etcd_compaction`: drop etcd's
    old revisions each minute. In `state_dir` is then a note of how far etcd had come, so that one is refused that was
    restored from an older state; without it there is none.

        with LockServer(port=1234) as server:
            Thread(target=server.start_server).start()
            ...
    """

    def __init__(
        self,
        host: Union[str, Iterable[str]] = "localhost",
        port: Union[str, int, None] = None,
        family: str = "INET",
        path: Optional[str] = None,
        state: Union[str, Store, None] = None,
        state_dir: Optional[str] = None,
        sockets: Optional[Iterable[socket.socket]] = None,
        idle_timeout: float = IDLE_TIMEOUT,
        etcd: Optional[EtcdSettings] = None,
        leader_ttl: int = TTL,
        etcd_compaction: bool = True,
        inherited: Optional[Inheritance] = None,
    ) -> None:
        self._made_with = given(locals())
        hosts = text_list("host", host, HOSTS)
        check_text("the name of a UNIX socket", path=path)
        check_text("the name of a folder", state_dir=state_dir)
        check_seconds("idle_timeout", idle_timeout)
        if not isinstance(state, (str, type(None))) and not hasattr(state, "load"):
            raise wrong("state", state, "the name of a file")
        check_whole("leader_ttl", leader_ttl, SHORTEST_TTL, LONGEST_TTL)
        inherited = inherited or Inheritance(socket_list("sockets", sockets))
        where = endpoint(port, family, path)
        if etcd is not None:
            _check_shared(state, where.path, inherited.sockets)
        bind = tcp_listeners if etcd is None else bound_sockets
        self._open_sockets(inherited, where.path, UnixListener, adopt_listeners, lambda: bind(hosts, where.port))
        self._idle_timeout = idle_timeout
        self._last_token = inherited.last_token
        self._state_location: str | None = None
        self._term: ServingTerm | None = None
        self._replica: Replica | None = None
        super().__init__(Loop(self._tick))
        try:
            if etcd is None:
                self._open_state(inherited.state or state, state_dir)
            else:
                self._replica = self._make_replica(etcd, leader_ttl, etcd_compaction, state_dir, where.port)
        except BaseException:
            self.close()
            raise

    def start_server(
        self,
        host: Union[str, Iterable[str]] = UNCHANGED,
        port: Union[str, int, None] = UNCHANGED,
        family: str = UNCHANGED,
        path: Optional[str] = UNCHANGED,
        state: Union[str, Store, None] = UNCHANGED,
        state_dir: Optional[str] = UNCHANGED,
        sockets: Optional[Iterable[socket.socket]] = UNCHANGED,
        idle_timeout: float = UNCHANGED,
        etcd: Optional[EtcdSettings] = UNCHANGED,
        leader_ttl: int = UNCHANGED,
        etcd_compaction: bool = UNCHANGED,
    ) -> None:
        """Serve until SIGTERM or SIGINT (if called in the main thread), SIGHUP, `stop` or `close`; then it is closed.

        With parameters, which go before those that it was made with, it is first made again. Raises as the
        constructor does.
        """
        self._make_again(LockServer.__init__, given(locals()))
        super().start_server()

    def describe(self) -> str:
        """One line for the log."""
        if self._replica is not None:
            return f"on {', '.join(self.addresses)}; {self._replica.status}"
        where = f"listening on {', '.join(self.addresses)}"
        if self._state_location is None:
            return f"{where}; locks live in memory, a restart forgets them"
        return f"{where}; locks are kept in {self._state_location}"

    @property
    def state_file(self) -> str | None:
        """The file that held locks are kept in; None: they live in memory."""
        return self._state_location

    @property
    def term(self) -> ServingTerm:
        """The term in which it serves."""
        assert self._term is not None
        return self._term

    def copy_state(self, path: str, done: Callable[[str | None], None]) -> None:
        """Copy the file as it is now; `done` is called in the loop with None, or with what went wrong."""
        assert self.term.group_commit is not None
        self.term.group_commit.copy(path, done)

    def check(self) -> None:
        """See whether what it depends on can be used. Raises StateError."""
        if self._replica is not None:
            self._replica.check()

    def run(self) -> bool:
        """Serve until stopped, as LoopServer.run; with etcd, when it leads. Raises StateError if it can't use etcd."""
        if self._replica is not None:
            with self._serving:
                self.wait_until_ready(lambda status: None)
        restarts = super().run()
        if self._replica is not None and self._replica.failure is not None:
            raise self._replica.failure
        return restarts

    def wait_until_ready(self, waiting: Callable[[str], None]) -> None:
        """Wait until it serves or stands by; `waiting` is called with what it waits for, again and again.

        Raises StateError if it can't use etcd for a reason that stays.
        """
        replica = self._replica
        if replica is None:
            return
        replica.start()
        while not replica.is_decided() and not self.is_stopped:
            waiting(replica.status)
            self._loop.turn(_TELL_EVERY)

    def hand_over(self) -> Inheritance:
        """Close, but for the sockets and the name of the UNIX socket; the clients are cut off."""
        if self._replica is not None:
            self._end_term()
            self._stop_listening()
            self._replica.resign()
        elif self._term is not None:
            self._term.stop_accepting()  # those that have not been accepted yet are the next server's
            self._last_token = self._term.service.table.last_token
        return super().hand_over()._replace(state=self._state_location, last_token=self._last_token)

    def _close(self) -> None:
        """Give back the sockets and the name of the UNIX socket; the clients are cut off."""
        self._end_term()
        self._close_sockets()
        if self._replica is not None:
            self._replica.resign()
        super()._close()

    def _end_term(self) -> None:
        """End the term in good order."""
        term, self._term = self._term, None
        if term is not None:
            term.stop_reading()
            if self._replica is None:
                self._close_sockets()  # before the clients: who is cut off may connect again at once, and is refused
            else:
                self._stop_listening()
            term.close()

    def _tick(self, now: float) -> float:
        due = inf if self._replica is None else self._replica.tick(now)
        return due if self._term is None else min(due, self._term.tick(now))

    # Locks of this server alone

    def _open_state(self, state: str | Store | None, folder: str | None) -> None:
        if state is None and folder is not None:
            state = os.path.join(make_state_folder(folder), self._state_name())
        store = open_store(state) if isinstance(state, str) else state
        try:
            kept = None if store is None else store.load()
            space = replies.space(new_space() if kept is None else kept.space)
            self._begin(lambda: space, store, kept, lambda problem: None, lambda: None)
        except BaseException:
            if store is not None:
                store.close()
            raise
        if store is not None:
            self._state_location = store.location

    def _begin(
        self,
        space: Callable[[], bytes],
        store: Store | None,
        kept: StoredState | None,
        lost: Callable[[Exception], None],
        lives: Callable[[], None],
    ) -> None:
        self._term = ServingTerm(
            self._loop, self._sockets, self._idle_timeout, self._last_token, space, store, kept, lost, lives
        )
        self._term.begin()

    # Locks of a lock space that several servers share

    def _make_replica(self, etcd: EtcdSettings, ttl: int, compacts: bool, folder: str | None, port: int) -> Replica:
        from ..storage.etcd_note import EtcdNote  # only here: a server of its own needs none of that
        from .replica import Replica

        note = None if folder is None else EtcdNote(folder, port, etcd.checked().prefix)

        def changed(status: str) -> None:
            self.on_status(self.describe())

        return Replica(etcd, ttl, compacts, self.addresses, note, self._loop, self, changed)

    def begin_term(self, store: Store, kept: StoredState, space: Callable[[], bytes]) -> None:
        """Serve, with what is kept in a shared store. Raises StateError, OSError."""
        assert self._replica is not None
        try:
            for sock in self._sockets:
                start_listening(sock)
            self._begin(space, store, kept, self._replica.on_term_lost, self._lives)
        except BaseException:
            self.abandon_term()
            raise

    def _lives(self) -> None:
        assert self._replica is not None
        self._replica.note_turn()
        self.on_alive()

    def abandon_term(self) -> None:
        """Serve no more: others may do that already."""
        term, self._term = self._term, None
        if term is not None:
            term.abandon()
        self._stop_listening()

    def _stop_listening(self) -> None:
        self._sockets = [stop_listening(sock) for sock in self._sockets]

    def _state_name(self) -> str:
        """A file name that tells the servers of one host apart."""
        from urllib.parse import quote

        first = self._sockets[0]
        if first.family == socket.AF_UNIX:
            return f"lockerd-{quote(self.addresses[0].lstrip('/'), safe='')}.db"
        return f"lockerd-{first.getsockname()[1]}.db"


def _check_shared(state: str | Store | None, path: str | None, sockets: Iterable[socket.socket]) -> None:
    """Raise UsageError for what can't be together with etcd."""
    if state is not None:
        raise UsageError(f"locks are kept in etcd or in a file, not in both: leave out the state '{state}'")
    if path is not None:
        raise UsageError(f"the UNIX socket '{path}' can't be used with etcd: clients of other hosts need a port")
    if any(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in sockets):
        raise UsageError(
            "sockets that listen already can't be used with etcd, since a server that stands by has to refuse clients: "
            "start lockerd without a socket unit"
        )
